// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/random.hpp>

#include "shapes.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace benchmarks {

/// Random weights that are made while they are packed, so that no layer is in memory in float. A weight is a function
/// of its expert, matrix, neuron and channel: neuron i of an expert is the same at every width. Expert e has
/// `widths[e]` neurons, and those from `kept[e]` on are zeros.
class synthetic_weights {
public:
  static constexpr std::size_t lanes = 2;

  synthetic_weights(const pruned_shape& shape, std::vector<std::size_t> widths, std::vector<std::size_t> kept)
      : shape_(shape), widths_(std::move(widths)), kept_(std::move(kept)), values_(period + longest_row) {
    for (std::size_t i = 0; i < period; ++i)
      values_[i] = static_cast<float>(2 * hmoe::uniform(hmoe::seed{1}, 0, i) - 1);
    std::copy_n(values_.begin(), longest_row, values_.begin() + period);
  }

  [[nodiscard]] std::size_t size() const noexcept { return widths_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return shape_.d_model; }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept { return widths_[e]; }
  [[nodiscard]] bool has_biases() const noexcept { return shape_.gpt_oss; }
  void read(std::size_t e, std::size_t m, std::size_t first, hmoe::matrix_view<float> to) const noexcept {
    const float scale = std::sqrt(3.0F / static_cast<float>(m < lanes ? shape_.d_model : shape_.width));
    for (std::size_t r = 0; r < to.rows(); ++r) {
      const std::size_t row = first + r;
      const std::size_t count = m == lanes ? std::min(kept_[e], to.cols()) : row < kept_[e] ? to.cols() : 0;
      const float* from = values_.data() + start(e, m, row);
      for (std::size_t k = 0; k < count; ++k)
        to(r, k) = scale * from[k];
      std::fill(to.row(r).begin() + count, to.row(r).end(), 0.0F);
    }
  }
  void read_bias(std::size_t e, std::size_t m, std::size_t first, hmoe::matrix_view<float> to) const noexcept {
    for (std::size_t r = 0; r < to.rows(); ++r)
      to(r, 0) = m == lanes || first + r < kept_[e] ? values_[start(e, 3 + m, first + r)] * 0.1F : 0.0F;
  }

private:
  static constexpr std::size_t period = std::size_t{1} << 16U, longest_row = 4096;
  [[nodiscard]] static std::size_t start(std::size_t e, std::size_t m, std::size_t row) noexcept {
    return static_cast<std::size_t>(hmoe::uniform(hmoe::seed{2}, e * 8 + m, row) * static_cast<double>(period));
  }

  pruned_shape shape_;
  std::vector<std::size_t> widths_, kept_;
  std::vector<float> values_;
};

} // namespace benchmarks
