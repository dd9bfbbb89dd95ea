// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/router_trace.hpp>

#include "losses/routing_batch.hpp"
#include "support/finite_differences.hpp"

#include <algorithm>
#include <span>
#include <vector>

namespace support {

/// f(sink of one, the same sink of the other) for the three sinks of two traces.
template <class F>
void for_each_sink(const hmoe::router_trace<double>& one, const hmoe::router_trace<double>& other, F f) {
  f(one.d_probabilities(), other.d_probabilities());
  f(one.d_logits(), other.d_logits());
  f(one.d_score_saved(), other.d_score_saved());
}

/// The worst relative error of both sinks against finite differences, where logits and probabilities count as
/// independent inputs: also for scores that do not add up to 1.
template <class Loss> [[nodiscard]] double sink_error(routing_batch& batch, const Loss& loss) {
  auto& trace = batch.trace;
  trace.clear_gradients();
  batch.evaluate(loss);
  const auto copy = [](auto view) { return std::vector<double>(view.data(), view.data() + view.size()); };
  const std::vector<double> by_logits = copy(trace.d_logits()), by_p = copy(trace.d_probabilities());
  const auto value = [&] { return loss.coefficient * batch.evaluate(loss); };
  const auto error = [&](auto view, const std::vector<double>& analytic) {
    return gradient_error({view.data(), view.size()}, analytic, value, {.step = 1e-5});
  };
  return std::max(error(trace.logits(), by_logits), error(trace.probabilities(), by_p));
}

/// routing_batch::gradient_error_of, through the softmax, for a batch whose probabilities may be off their logits, as
/// that function itself leaves them.
template <class Loss> [[nodiscard]] double softmax_error(routing_batch& batch, const Loss& loss) {
  batch.update_probabilities();
  const double error = batch.gradient_error_of(loss);
  batch.update_probabilities();
  return error;
}

/// Probabilities in (0.05, 1.05), which do not add up to 1.
inline void spread_probabilities(random_source& random, routing_batch& batch) {
  for (std::size_t t = 0; t < batch.tokens(); ++t)
    for (double& p : batch.trace.probabilities().row(t))
      p = random.real(0.05, 1.05);
}

} // namespace support
