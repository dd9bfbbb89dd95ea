// SPDX-License-Identifier: MIT
#pragma once

#include "tensor.hpp"

#include <cmath>
#include <cstddef>

namespace language_model {

/// Rotary position embedding (Su et al. 2021), base 10,000, in LLaMA's layout: entry j of a head turns together
/// with entry j + head_size/2, by the angle position · base^(-2j / head_size).
template <class T> class rotary_embedding {
public:
  rotary_embedding(std::size_t context, std::size_t head_size)
      : half_(to_index(head_size / 2)), cosine_(to_index(context), half_), sine_(to_index(context), half_) {
    for (Eigen::Index t = 0; t < cosine_.rows(); ++t) {
      for (Eigen::Index j = 0; j < half_; ++j) {
        const double exponent = -2.0 * static_cast<double>(j) / static_cast<double>(head_size);
        const double angle = static_cast<double>(t) * std::pow(10000.0, exponent);
        cosine_(t, j) = static_cast<T>(std::cos(angle));
        sine_(t, j) = static_cast<T>(std::sin(angle));
      }
    }
  }

  /// Turns each head-sized group of columns of x in place; row t of x is position t.
  void rotate(rows_ref<T> x) const { turn(x, T(1)); }

  /// The transpose of rotate, which is its inverse: carries gradients back.
  void rotate_back(rows_ref<T> x) const { turn(x, T(-1)); }

private:
  void turn(rows_ref<T>& x, T direction) const {
    for (Eigen::Index t = 0; t < x.rows(); ++t) {
      const T* c = cosine_.row(t).data();
      const T* s = sine_.row(t).data();
      for (Eigen::Index head = 0; head < x.cols(); head += 2 * half_) {
        T* first = x.row(t).data() + head;
        T* second = first + half_;
        for (Eigen::Index j = 0; j < half_; ++j) {
          const T a = first[j];
          const T b = second[j];
          first[j] = a * c[j] - direction * b * s[j];
          second[j] = b * c[j] + direction * a * s[j];
        }
      }
    }
  }

  Eigen::Index half_;
  matrix<T> cosine_;
  matrix<T> sine_;
};

} // namespace language_model
