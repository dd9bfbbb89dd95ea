// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix.hpp>

#include "../support/subject.hpp"

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>

namespace benchmarks::competitors {

/// The loop that everyone writes around a library's matrix product: for each expert, gather its tokens, project, apply
/// the activation (vectorised), project back, and add the weighted rows to y. All threads work on one expert.
/// Product: set_threads(n), prepare(w) once for each weight matrix, and product(a[m×k], w[n×k], c[m×n]): c = a wᵀ.
template <class Product> class per_expert final : public runner {
public:
  explicit per_expert(const model& weights) : weights_(weights) {
    product_.set_threads(1);
    for (std::size_t copy = 0; copy < weights.copy_count(); ++copy)
      for (std::size_t e = 0; e < weights.shape().experts(); ++e) {
        product_.prepare(gate_and_up(copy, e));
        product_.prepare(weights.bank(copy).down(e));
      }
  }

  void set_threads(std::size_t threads) override {
    threads_ = static_cast<int>(threads);
    product_.set_threads(threads_);
  }

  [[nodiscard]] std::size_t copies() const override { return weights_.copy_count(); }
  void run(std::size_t copy, const batch& input, hmoe::matrix_view<float> y) override {
    for_each_row(y.rows(), [&](std::size_t t) { std::ranges::fill(y.row(t), 0.0F); });
    for (std::size_t e = 0; e < weights_.shape().experts(); ++e) {
      const std::size_t first = input.plan.offsets()[e], rows = input.plan.rows_of(e);
      if (rows == 0)
        continue;
      const std::size_t d = y.cols(), h = weights_.bank(copy).width(e);
      const auto in = rows_.view(rows, d), hidden = hidden_.view(rows, 2 * h), activated = activated_.view(rows, h),
                 out = out_.view(rows, d);
      for_each_row(rows, [&](std::size_t r) {
        std::ranges::copy(input.x.row(input.plan.tokens()[first + r]), in.row(r).begin());
      });
      product_(in, gate_and_up(copy, e), hidden);
      for_each_row(rows, [&](std::size_t r) { silu_times(hidden.row(r).data(), h, activated.row(r).data()); });
      product_(activated, weights_.bank(copy).down(e), out);
      for_each_row(rows, [&](std::size_t r) {
        const float weight = input.assigned.weights()[input.plan.entries()[first + r]];
        float* to = y.row(input.plan.tokens()[first + r]).data();
        for (std::size_t i = 0; i < d; ++i)
          to[i] += weight * out(r, i);
      });
    }
  }

private:
  /// Scratch that only grows.
  class scratch {
  public:
    hmoe::matrix_view<float> view(std::size_t rows, std::size_t cols) {
      if (memory_.size() < rows * cols)
        memory_.resize_for_overwrite(1, rows * cols);
      return {memory_.data(), rows, cols};
    }

  private:
    hmoe::matrix<float> memory_;
  };

  /// [2h×d]: a bank keeps the gate rows right above the up rows.
  [[nodiscard]] hmoe::matrix_view<const float> gate_and_up(std::size_t copy, std::size_t e) const {
    const auto gate = weights_.bank(copy).gate(e);
    return {gate.data(), 2 * gate.rows(), gate.cols(), gate.stride()};
  }

  template <class F> void for_each_row(std::size_t rows, F f) const {
#pragma omp parallel for num_threads(threads_) if (threads_ > 1)
    for (std::size_t r = 0; r < rows; ++r)
      f(r);
  }

  /// to[0, h) = silu(row[0, h)) · row[h, 2h)
  static void silu_times(const float* row, std::size_t h, float* to) {
    using vec = xsimd::batch<float>;
    std::size_t i = 0;
    for (; i + vec::size <= h; i += vec::size) {
      const vec g = vec::load_unaligned(row + i);
      (g / (vec(1.0F) + xsimd::exp(-g)) * vec::load_unaligned(row + h + i)).store_unaligned(to + i);
    }
    for (; i < h; ++i)
      to[i] = row[i] / (1 + std::exp(-row[i])) * row[h + i];
  }

  const model& weights_;
  Product product_;
  scratch rows_, hidden_, activated_, out_;
  int threads_ = 1;
};

/// A subject made of it; it takes every layer that has SwiGLU experts only.
template <class Product> subject per_expert_subject(std::string name, std::string version) {
  return {std::move(name), f32, std::move(version), [](const layer_shape& shape) { return !shape.mixed(); },
          [](const model& weights) { return std::make_unique<per_expert<Product>>(weights); }};
}

} // namespace benchmarks::competitors
