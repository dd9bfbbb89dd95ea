// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/experts/zero_cost_bank.hpp>

#include <algorithm>

namespace hmoe::experts {

/// Experts that discard the token, y = 0: MoE++'s zero expert (arXiv 2410.07348). Under renormalised weights a token
/// that selects one gives the others less weight; MoE++ itself sets that weight to 0 before it renormalises.
template <float_or_double T> class zero_bank : public zero_cost_bank<T> {
public:
  using zero_cost_bank<T>::zero_cost_bank;

  template <class Math>
  static void forward(const Math&, std::size_t, matrix_view<const T>, matrix_view<T> y, matrix_view<T>) noexcept {
    for (std::size_t r = 0; r < y.rows(); ++r)
      std::fill(y.row(r).begin(), y.row(r).end(), T(0));
  }
  template <class Math>
  static void backward(const Math&, std::size_t, matrix_view<const T>, matrix_view<const T>, matrix_view<const T>,
                       matrix_view<T> dx, matrix_view<T>, zero_bank&) noexcept {
    for (std::size_t r = 0; r < dx.rows(); ++r)
      std::fill(dx.row(r).begin(), dx.row(r).end(), T(0));
  }
};

} // namespace hmoe::experts

#include <hmoe/core/macros_on.hpp>
