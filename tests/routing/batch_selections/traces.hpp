// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/routing/score_functions/softmax.hpp>

#include "support/random_matrix.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <utility>
#include <vector>

namespace batches {

namespace routing = hmoe::routing;
using hmoe::index_t;
using id_list = std::vector<index_t>;

/// Each token's experts.
template <class Selection>
std::vector<id_list> choose(const Selection& select, const hmoe::router_trace<double>& trace) {
  const std::size_t n = trace.expert_count();
  std::size_t most = n;
  if constexpr (requires { select.max_selected(n); })
    most = select.max_selected(n);
  std::vector<index_t> memory(trace.tokens() * most), counts(trace.tokens(), 77);
  select(trace, hmoe::matrix_view<index_t>(memory.data(), trace.tokens(), most), hmoe::vector_view<index_t>(counts),
         std::pmr::get_default_resource());
  std::vector<id_list> result;
  for (std::size_t t = 0; t < trace.tokens(); ++t) {
    const auto begin = memory.begin() + static_cast<std::ptrdiff_t>(t * most);
    result.emplace_back(begin, begin + counts[t]);
    std::sort(result.back().begin(), result.back().end());
  }
  return result;
}
inline hmoe::router_trace<double> random_trace(std::uint64_t seed, std::size_t tokens, std::size_t experts,
                                               bool coarse) {
  support::random_source random(seed);
  hmoe::router_trace<double> trace;
  trace.resize(tokens, experts, 0, false);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (double& z : trace.logits().row(t))
      z = coarse ? std::round(random.real(-2, 2)) : random.real(-2, 2);
    routing::softmax::forward(std::as_const(trace).logits().row(t), trace.probabilities().row(t));
  }
  return trace;
}
inline std::vector<std::size_t> loads_of(const std::vector<id_list>& chosen, std::size_t experts) {
  std::vector<std::size_t> loads(experts);
  for (const id_list& row : chosen)
    for (const index_t e : row)
      ++loads[e];
  return loads;
}

} // namespace batches
