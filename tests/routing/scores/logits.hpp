// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/reference.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>

#include "support/random_matrix.hpp"

#include <cstddef>
#include <cstdint>

namespace score_checks {

namespace routing = hmoe::routing;
using hmoe::matrix;

inline constexpr std::size_t d = 5, experts = 6, tokens = 9;

inline hmoe::routing_inputs<double> with_noise(std::uint64_t step = 3) {
  return {.noise = hmoe::noise_source{hmoe::seed{17}, step}};
}

template <class Score> void randomize(Score& score, std::uint64_t seed) {
  support::random_source random(seed);
  score.visit_parameters([&](const hmoe::parameter_info&, auto view) { support::fill(random, view); });
}

/// The logits of a score, and what it saved.
template <class Score>
hmoe::router_trace<double> logits_of(const Score& score, const matrix<double>& x,
                                     const hmoe::routing_inputs<double>& inputs = {}, std::size_t threads = 1) {
  hmoe::router_trace<double> trace;
  trace.resize(x.rows(), score.size(), score.saved_per_token(), true);
  trace.set_inputs(inputs);
  const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::openmp{threads}};
  const hmoe::workspace::scope scope(ctx.workspace());
  score.forward(ctx, x.view(), trace);
  return trace;
}

inline double dot(hmoe::vector_view<const double> a, hmoe::vector_view<const double> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    sum += a[i] * b[i];
  return sum;
}

} // namespace score_checks
