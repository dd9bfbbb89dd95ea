// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/parameter.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/elementwise.hpp>
#include <hmoe/experts/ffn_weights.hpp>
#include <hmoe/experts/gating.hpp>

#include <array>
#include <memory_resource>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe::experts {

/// Gated linear units (Shazeer 2020, arXiv 2002.05202) of any widths:
///   expert_e(x) = W_o (act(W_g x + b_g) ⊙ (W_p x + b_p)) + b_o,   W_g, W_p [h_e×d], W_o [d×h_e].
/// With silu this is the expert of LLaMA, Mixtral and HMoE (arXiv 2408.10681, section 3). Parameters are named gate,
/// up, down, gate_bias, up_bias, down_bias. `Gate` is an activation, or what stands between the projections as a whole
/// (hmoe::gating): expert_e(x) = W_o a(W_g x + b_g, W_p x + b_p) + b_o.
template <float_or_double T, class Gate> class glu_bank {
public:
  using value_type = T;
  static constexpr bool observes_stages = true;
  using gate_type = typename detail::as_gating<Gate>::type;
  static_assert(gating<gate_type>,
                "hmoe::experts::glu_bank: Gate models neither hmoe::activation (static value(z) and derivative(z)) nor "
                "hmoe::gating (value(g, u) and backward(g, u, da, dg, du)): pass for instance experts::silu");

  /// `widths`: hidden width of each expert; see hmoe::widths for the strategies of the paper. The weights are zeros, in
  /// memory of the given resource.
  glu_bank(std::size_t d_model, const std::vector<std::size_t>& widths, biases bias = biases::none, gate_type gate = {},
           std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : weights_(d_model, widths, bias, memory), gate_(std::move(gate)) {
    if constexpr (requires { gate_.validate(); })
      gate_.validate();
  }
  /// On the caller's weights, which must outlive the bank; lanes are gate and up. A copy of the bank owns its weights.
  /// ffn_tensors<T, 2> can be trained in place, ffn_tensors<const T, 2> are read only (a mapped file).
  explicit glu_bank(ffn_weights<T, 2> weights, gate_type gate = {})
      : weights_(std::move(weights)), gate_(std::move(gate)) {
    if constexpr (requires { gate_.validate(); })
      gate_.validate();
  }

  [[nodiscard]] std::size_t size() const noexcept { return weights_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return weights_.d_model(); }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept { return weights_.width(e); }
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const noexcept { return weights_.parameter_count(e); }
  [[nodiscard]] double flops_per_row(std::size_t e) const noexcept { return weights_.flops_per_row(e); }

  [[nodiscard]] const gate_type& gate_function() const noexcept { return gate_; }
  [[nodiscard]] matrix_view<T> gate(std::size_t e) { return weights_.lane(e, 0); }
  [[nodiscard]] matrix_view<const T> gate(std::size_t e) const noexcept { return weights_.lane(e, 0); }
  [[nodiscard]] matrix_view<T> up(std::size_t e) { return weights_.lane(e, 1); }
  [[nodiscard]] matrix_view<const T> up(std::size_t e) const noexcept { return weights_.lane(e, 1); }
  [[nodiscard]] matrix_view<T> down(std::size_t e) { return weights_.output(e); }
  [[nodiscard]] matrix_view<const T> down(std::size_t e) const noexcept { return weights_.output(e); }

  /// All weights and biases, as backends that compute whole banks take them.
  [[nodiscard]] ffn_weights<T, 2>& weights() noexcept { return weights_; }
  [[nodiscard]] const ffn_weights<T, 2>& weights() const noexcept { return weights_; }

  /// Saved of a row: gate and up before the activation, and the activated hidden values [g | u | a].
  [[nodiscard]] std::size_t saved_per_row(std::size_t e) const noexcept { return 3 * width(e); }
  [[nodiscard]] std::size_t scratch_per_row(std::size_t e) const noexcept { return 2 * width(e); }

  template <class Math>
  void forward(const Math& math, std::size_t e, matrix_view<const T> x, matrix_view<T> y, matrix_view<T> saved) const {
    const std::size_t h = width(e);
    const matrix_view<T> activated = saved.column_block(2 * h, h);
    weights_.project_in(math, e, x, saved.column_block(0, 2 * h));
    {
      [[maybe_unused]] probes::watch<Math> watched;
      if constexpr (probes::observed<Math>)
        watched.begin(math, weights_.activation(probes::direction::forward, e, x.rows()));
      for (std::size_t r = 0; r < x.rows(); ++r) {
        const vector_view<const T> row = saved.row(r);
        experts::apply_gate(math, gate_, row.subview(0, h), row.subview(h, h), activated.row(r));
      }
    }
    weights_.project_out(math, e, activated, y);
  }

  template <class Math>
  void backward(const Math& math, std::size_t e, matrix_view<const T> x, matrix_view<const T> saved,
                matrix_view<const T> dy, matrix_view<T> dx, matrix_view<T> scratch, glu_bank& gradients) const {
    const std::size_t h = width(e);
    // ∂L/∂a goes where ∂L/∂u will overwrite it.
    weights_.backward_out(math, e, saved.column_block(2 * h, h), dy, scratch.column_block(h, h), gradients.weights_);
    {
      [[maybe_unused]] probes::watch<Math> watched;
      if constexpr (probes::observed<Math>)
        watched.begin(math, weights_.activation(probes::direction::backward, e, x.rows()));
      for (std::size_t r = 0; r < x.rows(); ++r) {
        const vector_view<const T> row = saved.row(r);
        const vector_view<T> d = scratch.row(r);
        experts::apply_gate_backward(math, gate_, row.subview(0, h), row.subview(h, h), d.subview(0, h),
                                     d.subview(h, h));
      }
    }
    weights_.backward_in(math, e, x, scratch, dx, gradients.weights_);
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) const {
    weights_.visit_parameters(lane_names, bias_names, hmoe::detail::read_with(visit));
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    weights_.visit_parameters(lane_names, bias_names, visit);
  }
  void initialize(seed key, std::uint64_t first_stream, const initialization& options) {
    weights_.initialize(key, first_stream, options);
  }

private:
  static constexpr std::array<std::string_view, 2> lane_names{"gate", "up"}, bias_names{"gate_bias", "up_bias"};

  ffn_weights<T, 2> weights_;
  [[no_unique_address]] gate_type gate_;
};

} // namespace hmoe::experts

#include <hmoe/core/macros_on.hpp>
