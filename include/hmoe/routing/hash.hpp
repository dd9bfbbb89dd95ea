// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/routing/selection.hpp>

#include <memory_resource>
#include <utility>
#include <vector>

namespace hmoe::routing {

namespace detail {
template <class T> [[nodiscard]] vector_view<const index_t> token_ids_of(const router_trace<T>& trace) {
  const auto ids = trace.inputs().token_ids;
  require(ids.size() == trace.tokens(), "hash selection needs the id of each token: routing_inputs::token_ids has ",
          ids.size(), " for ", trace.tokens(), " tokens");
  return ids;
}
} // namespace detail

/// A token's experts depend on its vocabulary id alone: k different experts drawn by a hash of the id (random hash and
/// multi-hash of Hash Layers, Roller et al. 2021, arXiv 2106.04426). Needs routing_inputs::token_ids. The paper's layer
/// is router<no_score<T>, hash, equal>.
struct hash {
  std::size_t k = 1;
  seed key{};

  [[nodiscard]] std::size_t max_selected(std::size_t) const noexcept { return k; }
  void validate(std::size_t experts) const {
    require(k >= 1 && k <= experts, "hash with k = ", k, " for ", experts, " experts: k must be 1 to ", experts);
  }
  template <class T>
  void operator()(const router_trace<T>& trace, matrix_view<index_t> chosen, vector_view<index_t> counts,
                  std::pmr::memory_resource*) const {
    const auto ids = detail::token_ids_of(trace);
    for (std::size_t t = 0; t < trace.tokens(); ++t) {
      choose(ids[t], trace.expert_count(), chosen.row(t));
      counts[t] = static_cast<index_t>(k);
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

/// The same with a table that somebody made, for instance one that balances by word frequency (Roller et al., section
/// 3.2): row v of table[V×k] holds the experts of vocabulary id v.
class hash_table {
public:
  hash_table(std::vector<index_t> table, std::size_t k) : table_(std::move(table)), k_(k) {
    require(k >= 1 && !table_.empty() && table_.size() % k == 0, "a hash table of ", table_.size(),
            " values is not made of rows of k = ", k);
  }
  [[nodiscard]] std::size_t max_selected(std::size_t) const noexcept { return k_; }
  void validate(std::size_t experts) const {
    require(k_ <= experts, "hash_table with k = ", k_, " for ", experts, " experts: k must be 1 to ", experts);
    for (std::size_t i = 0; i < table_.size(); ++i) {
      require(table_[i] < experts, "hash_table sends id ", i / k_, " to expert ", table_[i], " of ", experts);
      for (std::size_t j = i / k_ * k_; j < i; ++j)
        require(table_[j] != table_[i], "hash_table sends id ", i / k_, " to expert ", table_[i], " twice");
    }
  }
  template <class T>
  void operator()(const router_trace<T>& trace, matrix_view<index_t> chosen, vector_view<index_t> counts,
                  std::pmr::memory_resource*) const {
    const auto ids = detail::token_ids_of(trace);
    for (std::size_t t = 0; t < trace.tokens(); ++t) {
      require(ids[t] < table_.size() / k_, "token ", t, " has vocabulary id ", ids[t], ", the hash table ends at ",
              table_.size() / k_);
      for (std::size_t j = 0; j < k_; ++j)
        chosen(t, j) = table_[ids[t] * k_ + j];
      counts[t] = static_cast<index_t>(k_);
    }
  }

private:
  std::vector<index_t> table_;
  std::size_t k_;
};

} // namespace hmoe::routing
