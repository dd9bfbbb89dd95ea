// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/parameter.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/elementwise.hpp>
#include <hmoe/experts/ffn_weights.hpp>

#include <array>
#include <memory_resource>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe::experts {

/// Two-layer perceptrons of any widths, expert_e(x) = W_o act(W_i x + b_i) + b_o, W_i [h_e×d], W_o [d×h_e]: the expert
/// of the Switch Transformer (arXiv 2101.03961) and GShard. Parameters are named up, down, up_bias, down_bias.
template <float_or_double T, activation Activation> class mlp_bank {
public:
  using value_type = T;
  static constexpr bool observes_stages = true;
  using activation_type = Activation;

  /// Zeros of the given widths, in memory of the given resource.
  mlp_bank(std::size_t d_model, const std::vector<std::size_t>& widths, biases bias = biases::none,
           std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : weights_(d_model, widths, bias, memory) {}
  /// On the caller's weights, which must outlive the bank. A copy of the bank owns its weights. ffn_tensors<T, 1> can
  /// be trained in place, ffn_tensors<const T, 1> are read only (a mapped file).
  explicit mlp_bank(ffn_weights<T, 1> weights) : weights_(std::move(weights)) {}

  [[nodiscard]] std::size_t size() const noexcept { return weights_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return weights_.d_model(); }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept { return weights_.width(e); }
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const noexcept { return weights_.parameter_count(e); }
  [[nodiscard]] double flops_per_row(std::size_t e) const noexcept { return weights_.flops_per_row(e); }

  [[nodiscard]] matrix_view<T> up(std::size_t e) { return weights_.lane(e, 0); }
  [[nodiscard]] matrix_view<const T> up(std::size_t e) const noexcept { return weights_.lane(e, 0); }
  [[nodiscard]] matrix_view<T> down(std::size_t e) { return weights_.output(e); }
  [[nodiscard]] matrix_view<const T> down(std::size_t e) const noexcept { return weights_.output(e); }

  /// All weights and biases, as backends that compute whole banks take them.
  [[nodiscard]] ffn_weights<T, 1>& weights() noexcept { return weights_; }
  [[nodiscard]] const ffn_weights<T, 1>& weights() const noexcept { return weights_; }

  /// Saved of a row: the hidden values before and after the activation [z | a].
  [[nodiscard]] std::size_t saved_per_row(std::size_t e) const noexcept { return 2 * width(e); }
  [[nodiscard]] std::size_t scratch_per_row(std::size_t e) const noexcept { return width(e); }

  template <class Math>
  void forward(const Math& math, std::size_t e, matrix_view<const T> x, matrix_view<T> y, matrix_view<T> saved) const {
    const std::size_t h = width(e);
    const matrix_view<T> activated = saved.column_block(h, h);
    weights_.project_in(math, e, x, saved.column_block(0, h));
    {
      [[maybe_unused]] probes::watch<Math> watched;
      if constexpr (probes::observed<Math>)
        watched.begin(math, weights_.activation(probes::direction::forward, e, x.rows()));
      for (std::size_t r = 0; r < x.rows(); ++r)
        experts::activate<Activation>(math, vector_view<const T>(saved.row(r)).subview(0, h), activated.row(r));
    }
    weights_.project_out(math, e, activated, y);
  }

  template <class Math>
  void backward(const Math& math, std::size_t e, matrix_view<const T> x, matrix_view<const T> saved,
                matrix_view<const T> dy, matrix_view<T> dx, matrix_view<T> scratch, mlp_bank& gradients) const {
    const std::size_t h = width(e);
    weights_.backward_out(math, e, saved.column_block(h, h), dy, scratch, gradients.weights_);
    {
      [[maybe_unused]] probes::watch<Math> watched;
      if constexpr (probes::observed<Math>)
        watched.begin(math, weights_.activation(probes::direction::backward, e, x.rows()));
      for (std::size_t r = 0; r < x.rows(); ++r)
        experts::activate_backward<Activation>(math, saved.row(r).subview(0, h), scratch.row(r));
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
  static constexpr std::array<std::string_view, 1> lane_names{"up"}, bias_names{"up_bias"};

  ffn_weights<T, 1> weights_;
};

} // namespace hmoe::experts

#include <hmoe/core/macros_on.hpp>
