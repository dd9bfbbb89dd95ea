// SPDX-License-Identifier: MIT
#pragma once

#include "tensor.hpp"
#include "token.hpp"

#include <cmath>
#include <span>

namespace language_model {

/// Loss of each row in nats: log Σ_v exp(logits_v) − logits_target. With scale ≠ 0 the logits are replaced by
/// their gradient times scale: scale · (softmax − one-hot); with scale 0 they are left as they are.
template <class T>
void cross_entropy(rows_ref<T> logits, std::span<const token> targets, T scale, std::span<T> losses) {
  Eigen::Array<T, 1, Eigen::Dynamic> exponentials(logits.cols());
  for (Eigen::Index i = 0; i < logits.rows(); ++i) {
    const Eigen::Index target = targets[to_size(i)];
    auto row = logits.row(i).array();
    const T highest = row.maxCoeff();
    exponentials = (row - highest).exp();
    const T sum = exponentials.sum();
    losses[to_size(i)] = std::log(sum) + highest - row(target);
    if (scale != T(0)) {
      row = exponentials * (scale / sum);
      row(target) -= scale;
    }
  }
}

} // namespace language_model
