// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/experts/zero_cost_bank.hpp>

#include <algorithm>

namespace hmoe::experts {

/// Experts that return the token, y = x: MoE++'s copy expert (arXiv 2410.07348), LongCat-Flash's zero-computation
/// expert.
template <float_or_double T> class identity_bank : public zero_cost_bank<T> {
public:
  using zero_cost_bank<T>::zero_cost_bank;

  template <class Math>
  static void forward(const Math&, std::size_t, matrix_view<const T> x, matrix_view<T> y, matrix_view<T>) noexcept {
    for (std::size_t r = 0; r < x.rows(); ++r)
      std::ranges::copy(x.row(r), y.row(r).begin());
  }
  template <class Math>
  static void backward(const Math&, std::size_t, matrix_view<const T>, matrix_view<const T>, matrix_view<const T> dy,
                       matrix_view<T> dx, matrix_view<T>, identity_bank&) noexcept {
    for (std::size_t r = 0; r < dy.rows(); ++r)
      std::ranges::copy(dy.row(r), dx.row(r).begin());
  }
};

} // namespace hmoe::experts

#include <hmoe/core/macros_on.hpp>
