// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/statistics/imbalance.hpp>

#include <vector>

namespace hmoe::statistics {

/// Mean over the tokens of the entropy of a token's probabilities, in nats; scores that do not add up to 1 are divided
/// by their sum. 0 for certain routers, ln N for undecided ones, 0 without tokens. Equals the value of
/// losses::router_entropy for softmax routers.
/// hmoe::error where the router has no probabilities (routing::unscored).
template <class T> [[nodiscard]] double router_entropy(const router_trace<T>& trace) {
  require(trace.has_probabilities(), "statistics::router_entropy: this router has no probabilities, its scores are the "
                                     "logits themselves (routing::unscored): take the softmax of trace.logits()");
  double sum = 0;
  for (std::size_t t = 0; t < trace.tokens(); ++t)
    sum += entropy(trace.probabilities().row(t));
  return trace.valid_tokens() == 0 ? 0 : sum / static_cast<double>(trace.valid_tokens());
}

/// [N] P̂_i = (1/T) Σ_t P_{t,i}; all 0 without tokens.
template <class T> [[nodiscard]] std::vector<double> mean_probabilities(const router_trace<T>& trace) {
  std::vector<double> means(trace.expert_count());
  for (std::size_t t = 0; t < trace.tokens(); ++t)
    for (std::size_t e = 0; e < means.size(); ++e)
      means[e] += static_cast<double>(trace.probabilities()(t, e));
  for (double& mean : means)
    mean = trace.valid_tokens() == 0 ? 0 : mean / static_cast<double>(trace.valid_tokens());
  return means;
}

} // namespace hmoe::statistics

#include <hmoe/core/macros_on.hpp>
