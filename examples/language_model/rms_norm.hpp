// SPDX-License-Identifier: MIT
#pragma once

#include "tensor.hpp"

#include <cmath>
#include <cstddef>

namespace language_model {

/// y = gain ⊙ x / √(mean(x²) + 1e-5), row by row (Zhang and Sennrich 2019).
template <class T> class rms_norm {
public:
  /// 1/√(mean(x²) + ε) per row, kept for the backward pass.
  using inverse_rms = Eigen::Matrix<T, Eigen::Dynamic, 1>;

  explicit rms_norm(std::size_t size) : gain_(1, size) { gain_.value.setOnes(); }

  void forward(const const_rows_ref<T>& x, Eigen::Ref<inverse_rms> inverse, rows_ref<T> y) const {
    const T scale = T(1) / static_cast<T>(x.cols());
    for (Eigen::Index i = 0; i < x.rows(); ++i) {
      inverse(i) = T(1) / std::sqrt(x.row(i).squaredNorm() * scale + T(1e-5));
      y.row(i).array() = x.row(i).array() * inverse(i) * gain_.value.row(0).array();
    }
  }

  /// dx += the gradient through the norm; dgain_row = the gradient of the gain summed over these rows. Callers
  /// that work in parallel give each block of rows its own dgain_row and add them up in order afterwards.
  void backward(const const_rows_ref<T>& x, const Eigen::Ref<const inverse_rms>& inverse, const const_rows_ref<T>& dy,
                rows_ref<T> dx, rows_ref<T> dgain_row) const {
    const T scale = T(1) / static_cast<T>(x.cols());
    const auto gain = gain_.value.row(0).array();
    dgain_row.setZero();
    for (Eigen::Index i = 0; i < x.rows(); ++i) {
      const auto xi = x.row(i).array();
      const auto dyi = dy.row(i).array();
      const T projection = (gain * dyi * xi).sum() * scale * inverse(i) * inverse(i);
      dx.row(i).array() += inverse(i) * (gain * dyi - projection * xi);
      dgain_row.row(0).array() += dyi * xi * inverse(i);
    }
  }

  weight<T>& gain() { return gain_; }

private:
  weight<T> gain_;
};

} // namespace language_model
