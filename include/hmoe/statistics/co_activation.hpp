// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>

#include <cstdint>

namespace hmoe::statistics {

/// Adds to counts[N×N]: at (i, j) the tokens that selected both i and j, on the diagonal those that selected i.
template <class T> void add_co_activation(const assignment<T>& assigned, matrix_view<std::uint64_t> counts) {
  require(counts.rows() == counts.cols(), "co-activations are counted in a ", counts.rows(), " x ", counts.cols(),
          " matrix, it must be square");
  for (const index_t e : assigned.experts())
    require(e < counts.rows(), "the assignment names expert ", e, ", the co-activation matrix has ", counts.rows());
  for (std::size_t t = 0; t < assigned.tokens(); ++t)
    for (const index_t i : assigned.experts_of(t))
      for (const index_t j : assigned.experts_of(t))
        ++counts(i, j);
}
template <class T>
[[nodiscard]] matrix<std::uint64_t> co_activation(const assignment<T>& assigned, std::size_t experts) {
  matrix<std::uint64_t> counts(experts, experts);
  add_co_activation(assigned, counts.view());
  return counts;
}

/// [N×N] P(j | i) = counts(i, j) / counts(i, i): of the tokens of expert i, the share that also went to j. 1 on the
/// diagonal; rows of experts without a token are 0.
[[nodiscard]] inline matrix<double> conditional_co_activation(matrix_view<const std::uint64_t> counts) {
  matrix<double> result(counts.rows(), counts.cols());
  for (std::size_t i = 0; i < counts.rows(); ++i)
    for (std::size_t j = 0; j < counts.cols(); ++j)
      result(i, j) = counts(i, i) == 0 ? 0 : static_cast<double>(counts(i, j)) / static_cast<double>(counts(i, i));
  return result;
}

} // namespace hmoe::statistics

#include <hmoe/core/macros_on.hpp>
