// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/statistics/number_list.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace hmoe::statistics {

namespace detail {

/// Σ values; hmoe::error when one is negative or NaN, or there are not `size`.
template <number_list Values> double checked_sum(const Values& values, std::size_t size) {
  require(count_of(values) == size, "a distribution has ", count_of(values), " values where ", size, " are needed");
  double sum = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const double value = at(values, i);
    require(value >= 0, "value ", i, " of a distribution is ", value, ", it must not be negative");
    sum += value;
  }
  return sum;
}

/// The indices of positions in ascending order of position, then of index; hmoe::error when one is not finite.
template <number_list Positions> std::vector<std::size_t> ascending(const Positions& positions) {
  std::vector<std::size_t> order(count_of(positions));
  for (std::size_t v = 0; v < order.size(); ++v)
    require(std::isfinite(at(positions, v)), "position ", v, " is ", at(positions, v), ", it must be finite");
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const double x = at(positions, a), y = at(positions, b);
    return x != y ? x < y : a < b;
  });
  return order;
}

/// ∫ |F_a − F_b| for distributions that were checked, with positions in this order.
template <number_list A, number_list B, number_list Positions>
double wasserstein(const A& a, double sum_a, const B& b, double sum_b, const Positions& positions,
                   const std::vector<std::size_t>& order) {
  if (!(sum_a > 0) || !(sum_b > 0))
    return 0;
  double difference = 0, distance = 0;
  for (std::size_t k = 0; k < order.size(); ++k) {
    if (k > 0)
      distance += std::abs(difference) * (at(positions, order[k]) - at(positions, order[k - 1]));
    difference += at(a, order[k]) / sum_a - at(b, order[k]) / sum_b;
  }
  return distance;
}

} // namespace detail

/// W_1(a, b) = ∫ |F_a(x) − F_b(x)| dx between two distributions on a line: the mean way that probability has to go to
/// turn one into the other. a[V] and b[V] are counts or weights, which are divided by their sums; positions[V] say
/// where on the line each of the V values lies, in any order, and give the unit. 0 when one of them is all zero.
template <number_list A, number_list B, number_list Positions>
[[nodiscard]] double wasserstein(const A& a, const B& b, const Positions& positions) {
  const std::size_t values = detail::count_of(positions);
  const double sum_a = detail::checked_sum(a, values), sum_b = detail::checked_sum(b, values);
  return detail::wasserstein(a, sum_a, b, sum_b, positions, detail::ascending(positions));
}

/// [N×N] W_1 between every two rows of counts[N×V], the experts' token distributions.
template <number_list Positions>
[[nodiscard]] matrix<double> wasserstein_matrix(matrix_view<const std::uint64_t> counts, const Positions& positions) {
  const auto order = detail::ascending(positions);
  std::vector<double> sums;
  for (std::size_t e = 0; e < counts.rows(); ++e)
    sums.push_back(detail::checked_sum(counts.row(e), detail::count_of(positions)));
  matrix<double> distances(counts.rows(), counts.rows());
  for (std::size_t i = 0; i < counts.rows(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      distances(i, j) = distances(j, i) =
          detail::wasserstein(counts.row(i), sums[i], counts.row(j), sums[j], positions, order);
  return distances;
}

/// [V] the position of each value on [0, 1] when the values are put in ascending order of `key`, each takes a piece as
/// long as its share of `counts`, and sits in the middle of it: so a distribution equal to `counts` is spread evenly.
/// With the mean loss of a token as the key, the distance between experts is one in difficulty. Equal keys keep the
/// order of ids. All 0 when the counts are.
template <number_list Key, number_list Counts>
[[nodiscard]] std::vector<double> quantile_positions(const Key& key, const Counts& counts) {
  const double sum = detail::checked_sum(counts, detail::count_of(key));
  std::vector<double> positions(detail::count_of(key));
  double before = 0;
  for (const std::size_t v : detail::ascending(key)) {
    const double share = sum > 0 ? detail::at(counts, v) / sum : 0;
    positions[v] = before + share / 2;
    before += share;
  }
  return positions;
}

} // namespace hmoe::statistics

#include <hmoe/core/macros_on.hpp>
