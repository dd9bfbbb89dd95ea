// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/routing/batch_selections/token_ids.hpp>

#include <cstddef>
#include <memory_resource>

namespace hmoe::routing {

/// A token's experts depend on its vocabulary id alone: k different experts drawn by a hash of the id (random hash and
/// multi-hash of Hash Layers, Roller et al. 2021, arXiv 2106.04426). Needs routing_inputs::token_ids. The paper's layer
/// is router<no_score<T>, random_hash, equal_weights>.
struct random_hash {
  std::size_t k = 1;
  seed key{};

  [[nodiscard]] std::size_t max_selected(std::size_t) const noexcept { return k; }
  template <class Visitor> void visit_numbers(Visitor&& visit) const {
    visit("k", k);
    visit("key", key.value);
  }
  void validate(std::size_t experts) const {
    require(k >= 1 && k <= experts, "random_hash with k = ", k, " for ", experts, " experts: k must be 1 to ", experts);
  }
  template <class T>
  void operator()(const router_trace<T>& trace, matrix_view<index_t> chosen, vector_view<index_t> counts,
                  std::pmr::memory_resource*) const {
    const auto ids = detail::token_ids_of(trace);
    for (std::size_t t = 0; t < trace.tokens(); ++t) {
      counts[t] = trace.is_valid(t) ? static_cast<index_t>(k) : 0;
      if (counts[t] != 0)
        choose(ids[t], trace.expert_count(), chosen.row(t));
    }
  }
  /// The k experts of vocabulary id `token`, ascending: choice j is uniform among those that are left.
  void choose(index_t token, std::size_t experts, vector_view<index_t> chosen) const noexcept {
    for (std::size_t j = 0; j < k; ++j) {
      const std::size_t left = experts - j;
      auto draw = static_cast<std::size_t>(uniform(key, j, token) * static_cast<double>(left));
      std::size_t at = 0; // the draw-th expert that is not among the j chosen ones
      for (; at < j && chosen[at] <= draw; ++at)
        ++draw;
      for (std::size_t i = j; i > at; --i)
        chosen[i] = chosen[i - 1];
      chosen[at] = static_cast<index_t>(draw);
    }
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
