// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/probes/stages.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace benchmarks {

/// Tells the stages of a pass where `to` is set. Else an event is a comparison, so timed passes are those of no probe
/// to within nanoseconds a piece of work, and each kernel is compiled once.
struct switched_stages {
  hmoe::probes::stages* to = nullptr;
  void begin(const hmoe::probes::event& e) const noexcept {
    if (to != nullptr)
      to->begin(e);
  }
  void end(const hmoe::probes::event& e) const noexcept {
    if (to != nullptr)
      to->end(e);
  }
};

/// What every strategy runs in here.
using dispatch_context = hmoe::context<hmoe::backends::simd<>, hmoe::executors::openmp, switched_stages>;

/// Experts behind virtual calls, one for each pass: strategies are compiled against this one type, and kernels once for
/// each form of weights, without a strategy. It models hmoe::dispatched_experts; its functions are those of expert_set.
class any_experts {
public:
  using value_type = float;
  using rows_view = hmoe::vector_view<const hmoe::expert_rows<float>>;

  virtual ~any_experts() = default;
  [[nodiscard]] virtual std::size_t size() const = 0;
  [[nodiscard]] virtual std::size_t d_model() const = 0;
  [[nodiscard]] virtual std::size_t width(std::size_t e) const = 0;
  [[nodiscard]] virtual std::size_t saved_per_row(std::size_t e) const = 0;
  [[nodiscard]] virtual std::size_t bytes(std::size_t e) const = 0;
  [[nodiscard]] virtual double flops_per_row(std::size_t e) const = 0;
  [[nodiscard]] virtual std::size_t phases_of(const dispatch_context& ctx) const = 0;
  [[nodiscard]] virtual std::size_t scatter_copies(const dispatch_context& ctx) const = 0;
  [[nodiscard]] virtual bool gathers_rows(const dispatch_context& ctx) const = 0;
  virtual void forward_rows(const dispatch_context& ctx, rows_view rows) const = 0;
  /// hmoe::error for packed weights.
  virtual void backward_rows(const dispatch_context& ctx, rows_view rows, any_experts& gradients) const = 0;
  virtual void lay_out_forward_rows(const dispatch_context& dry, const hmoe::row_limits& limits,
                                    bool scatters = false) const = 0;
  virtual void lay_out_backward_rows(const dispatch_context& dry, const hmoe::row_limits& limits) const = 0;
  [[nodiscard]] virtual std::unique_ptr<any_experts> copy() const = 0;
};

/// Experts to measure: kinds and widths.
struct dispatch_shape {
  std::string name;
  std::size_t d_model, k;
  std::vector<std::size_t> widths;          ///< of SwiGLU experts
  std::vector<std::size_t> mlp_widths = {}; ///< of two-layer experts with GELU
  std::size_t identities = 0;               ///< experts that return their input

  [[nodiscard]] std::size_t experts() const { return widths.size() + mlp_widths.size() + identities; }
};

/// Random experts of a shape, their weights as they are in float (`f32`), or as simd::pack stores them: `packed_f32`,
/// `bf16`, `q8`, `q4`.
[[nodiscard]] std::unique_ptr<any_experts> make_plain_experts(const dispatch_shape& shape);
[[nodiscard]] std::unique_ptr<any_experts> make_packed_experts(const dispatch_shape& shape, const std::string& format);

} // namespace benchmarks
