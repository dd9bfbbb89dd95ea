// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/operations.hpp>

#include <algorithm>
#include <cstddef>

/// Sums and products of rows, by the backend where it has the operation (hmoe/execution/operations.hpp). The loops here
/// are the definition.
namespace hmoe::rows {

/// to += weight · from. Every dispatch adds up a token with this one function, in ascending order of experts, which is
/// what makes their results equal to the bit.
template <class Math, class T>
void add_scaled(const Math& math, T weight, vector_view<const T> from, vector_view<T> to) noexcept {
  if constexpr (operations::add_scaled<Math, T>())
    math.add_scaled(weight, from, to);
  else
    for (std::size_t i = 0; i < to.size(); ++i)
      to[i] += weight * from[i];
}

/// to = Σ_i weight(i) · row(i) over i < count, as if by add_scaled in turn; an empty row adds nothing.
template <class Math, class T, class Weight, class Row>
void weighted_sum(const Math& math, std::size_t count, const Weight& weight, const Row& row, vector_view<T> to) {
  if constexpr (operations::weighted_sum<Math, T>()) {
    math.weighted_sum(count, weight, row, to);
  } else {
    std::fill(to.begin(), to.end(), T(0));
    for (std::size_t i = 0; i < count; ++i)
      if (const vector_view<const T> from = row(i); !from.empty())
        rows::add_scaled(math, weight(i), from, to);
  }
}

/// to = weight · from
template <class Math, class T>
void copy_scaled(const Math& math, T weight, vector_view<const T> from, vector_view<T> to) noexcept {
  if constexpr (operations::copy_scaled<Math, T>())
    math.copy_scaled(weight, from, to);
  else
    for (std::size_t i = 0; i < to.size(); ++i)
      to[i] = weight * from[i];
}

/// Σ a_i b_i, by default in a wide accumulator. Not inlined: compilers choose between multiply-add and multiply, add by
/// what is around a loop, and all strategies must get the same bits.
template <class Math, class T>
[[nodiscard, gnu::noinline]] T dot(const Math& math, vector_view<const T> a, vector_view<const T> b) noexcept {
  if constexpr (operations::dot<Math, T>()) {
    return math.dot(a, b);
  } else {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
      sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    return static_cast<T>(sum);
  }
}

} // namespace hmoe::rows

#include <hmoe/core/macros_on.hpp>
