// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/statistics/number_list.hpp>

#include <cmath>
#include <cstdint>
#include <limits>

namespace hmoe::statistics {

/// KL(a ‖ b) = Σ_v p_v ln(p_v / q_v) in nats, where p and q are the counts a[V] and b[V] with `smoothing` added to
/// each, divided by their sums. 0 for equal distributions; infinite without smoothing when a has a value that b lacks;
/// 0 when one of them is all zero without smoothing.
template <number_list A, number_list B>
[[nodiscard]] double kl_divergence(const A& a, const B& b, double smoothing = 0.5) {
  const std::size_t values = detail::count_of(a);
  require(values == detail::count_of(b), "the divergence of distributions over ", values, " and ", detail::count_of(b),
          " values does not exist");
  require(smoothing >= 0, "the smoothing of a divergence is ", smoothing, ", it must not be negative");
  double sum_a = 0, sum_b = 0;
  for (std::size_t v = 0; v < values; ++v) {
    sum_a += detail::at(a, v) + smoothing;
    sum_b += detail::at(b, v) + smoothing;
  }
  if (!(sum_a > 0) || !(sum_b > 0))
    return 0;
  double divergence = 0;
  for (std::size_t v = 0; v < values; ++v) {
    const double p = (detail::at(a, v) + smoothing) / sum_a;
    const double q = (detail::at(b, v) + smoothing) / sum_b;
    if (p > 0)
      divergence += q > 0 ? p * std::log(p / q) : std::numeric_limits<double>::infinity();
  }
  return divergence;
}

/// (KL(a ‖ b) + KL(b ‖ a)) / 2, the same both ways.
template <number_list A, number_list B>
[[nodiscard]] double symmetric_divergence(const A& a, const B& b, double smoothing = 0.5) {
  return (kl_divergence(a, b, smoothing) + kl_divergence(b, a, smoothing)) / 2;
}

/// [N×N] symmetric divergence between every two rows of counts[N×V], the experts' token distributions: low where two
/// experts work on the same tokens. The paper calls its figure synergy; docs/statistics.md says what it leaves open.
[[nodiscard]] inline matrix<double> synergy_matrix(matrix_view<const std::uint64_t> counts, double smoothing = 0.5) {
  matrix<double> result(counts.rows(), counts.rows());
  for (std::size_t i = 0; i < counts.rows(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      result(i, j) = result(j, i) = symmetric_divergence(counts.row(i), counts.row(j), smoothing);
  return result;
}

} // namespace hmoe::statistics

#include <hmoe/core/macros_on.hpp>
