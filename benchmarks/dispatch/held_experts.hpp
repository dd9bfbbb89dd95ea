// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/experts/mlp.hpp>

#include "any_experts.hpp"

#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>

namespace benchmarks {

/// An expert_set as any_experts; Trainable false leaves backward passes uncompiled.
template <class Set, bool Trainable> class held_experts final : public any_experts {
public:
  explicit held_experts(Set set) : set_(std::move(set)) {}
  std::size_t size() const override { return set_.size(); }
  std::size_t d_model() const override { return set_.d_model(); }
  std::size_t width(std::size_t e) const override { return set_.width(e); }
  std::size_t saved_per_row(std::size_t e) const override { return set_.saved_per_row(e); }
  std::size_t bytes(std::size_t e) const override { return set_.bytes(e); }
  double flops_per_row(std::size_t e) const override { return set_.flops_per_row(e); }
  std::size_t phases_of(const dispatch_context& ctx) const override { return set_.phases_of(ctx); }
  std::size_t scatter_copies(const dispatch_context& ctx) const override { return set_.scatter_copies(ctx); }
  bool gathers_rows(const dispatch_context& ctx) const override { return set_.gathers_rows(ctx); }
  void forward_rows(const dispatch_context& ctx, rows_view rows) const override { set_.forward_rows(ctx, rows); }
  void backward_rows(const dispatch_context& ctx, rows_view rows, any_experts& gradients) const override {
    if constexpr (Trainable)
      set_.backward_rows(ctx, rows, static_cast<held_experts&>(gradients).set_);
    else
      hmoe::fail("packed weights are for inference");
  }
  void lay_out_forward_rows(const dispatch_context& dry, const hmoe::row_limits& limits, bool scatters) const override {
    set_.lay_out_forward_rows(dry, limits, scatters);
  }
  void lay_out_backward_rows(const dispatch_context& dry, const hmoe::row_limits& limits) const override {
    if constexpr (Trainable)
      set_.lay_out_backward_rows(dry, limits);
    else
      hmoe::fail("packed weights are for inference");
  }
  std::unique_ptr<any_experts> copy() const override { return std::make_unique<held_experts>(*this); }

private:
  Set set_;
};

/// Uniform numbers of the variance 1 / columns.
template <class Set> void fill_experts(Set& set) {
  std::uint64_t state = 0;
  set.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<float> tensor) {
    const float range = static_cast<float>(std::sqrt(12.0 / static_cast<double>(tensor.cols())));
    for (std::size_t r = 0; r < tensor.rows(); ++r)
      for (float& value : tensor.row(r)) {
        state += 0x9E3779B97F4A7C15U;
        const std::uint64_t mixed = (state ^ (state >> 30U)) * 0xBF58476D1CE4E5B9U;
        value = range * (static_cast<float>(mixed >> 40U) * 0x1p-24F - 0.5F);
      }
  });
}

/// The SwiGLU experts of a shape.
inline auto make_glu_set(const dispatch_shape& shape) {
  hmoe::expert_set set{hmoe::experts::glu_bank<float, hmoe::experts::silu>{shape.d_model, shape.widths}};
  fill_experts(set);
  return set;
}

} // namespace benchmarks
