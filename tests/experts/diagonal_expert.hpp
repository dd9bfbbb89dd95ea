// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>

namespace bank_checks {

/// The least a user writes: y = s ⊙ x + b.
template <class T> class diagonal_expert {
public:
  using value_type = T;
  explicit diagonal_expert(std::size_t d_model) : scale_(1, d_model), shift_(1, d_model) {}

  [[nodiscard]] std::size_t d_model() const { return scale_.cols(); }
  void forward(hmoe::matrix_view<const T> x, hmoe::matrix_view<T> y) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t c = 0; c < x.cols(); ++c)
        y(r, c) = scale_(0, c) * x(r, c) + shift_(0, c);
  }
  void backward(hmoe::matrix_view<const T> x, hmoe::matrix_view<const T> dy, hmoe::matrix_view<T> dx,
                diagonal_expert& gradients) const {
    for (std::size_t r = 0; r < x.rows(); ++r)
      for (std::size_t c = 0; c < x.cols(); ++c) {
        dx(r, c) = scale_(0, c) * dy(r, c);
        gradients.scale_(0, c) += x(r, c) * dy(r, c);
        gradients.shift_(0, c) += dy(r, c);
      }
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(hmoe::parameter_info{"scale"}, scale_.view());
    visit(hmoe::parameter_info{"shift", false}, shift_.view());
  }

private:
  hmoe::matrix<T> scale_, shift_;
};

} // namespace bank_checks
