// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/routing/projection.hpp>
#include <hmoe/routing/score_function.hpp>
#include <hmoe/routing/score_functions/softmax.hpp>

namespace hmoe::routing {

/// logits = W_r x (+ b_r), W_r [N×d], then `Function` makes scores of them: P = softmax(W_r x) by default, the router
/// of HMoE and of most models. Bias: whether there is a b_r [N] (gpt-oss). Parameters: weight, bias.
template <float_or_double T, class Function = softmax, bool Bias = false> class linear {
  static_assert(score_function<Function, T>,
                "hmoe::routing::linear: Function does not model hmoe::score_function: it needs forward(z, p) and "
                "backward(z, p, d_p, d_z) const over one row (see hmoe/routing/score_function.hpp)");

public:
  using value_type = T;
  using function_type = Function;

  linear(std::size_t d_model, std::size_t experts, Function function = {})
      : weight_(experts, d_model), bias_(Bias ? 1 : 0, experts), function_(function) {
    require(d_model >= 1 && experts >= 1, "a router from d_model = ", d_model, " to ", experts,
            " experts: both must be at least 1");
  }

  [[nodiscard]] std::size_t d_model() const noexcept { return weight_.cols(); }
  [[nodiscard]] static constexpr std::size_t saved_per_token() noexcept { return 0; }
  [[nodiscard]] std::size_t size() const noexcept { return weight_.rows(); }
  [[nodiscard]] const Function& function() const noexcept { return function_; }
  [[nodiscard]] matrix_view<T> weight() noexcept { return weight_; }
  [[nodiscard]] matrix_view<const T> weight() const noexcept { return weight_; }
  [[nodiscard]] vector_view<T> bias() noexcept
    requires Bias
  {
    return bias_.row(0);
  }
  [[nodiscard]] vector_view<const T> bias() const noexcept
    requires Bias
  {
    return bias_.row(0);
  }

  /// logits[T×N] = x[T×d] W_rᵀ (+ b_r)
  template <execution_context Context>
  void forward(const Context& ctx, matrix_view<const T> x, router_trace<T>& trace) const {
    detail::project(ctx, x, weight(), trace.logits());
    if constexpr (Bias)
      hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) {
        for (std::size_t i = 0; i < size(); ++i)
          trace.logits()(t, i) += bias()[i];
      });
  }
  /// gradients.weight += d_logitsᵀ x;  gradients.bias += Σ_t d_logits;  dx += d_logits W_r
  template <execution_context Context>
  void backward(const Context& ctx, matrix_view<const T> x, const router_trace<T>&, matrix_view<const T> d_logits,
                matrix_view<T> dx, linear& gradients) const {
    detail::project_backward(ctx, x, weight(), d_logits, dx, gradients.weight());
    if constexpr (Bias)
      for (std::size_t i = 0; i < size(); ++i) {
        double sum = 0;
        for (std::size_t t = 0; t < x.rows(); ++t)
          sum += static_cast<double>(d_logits(t, i));
        gradients.bias()[i] += static_cast<T>(sum);
      }
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) const { hmoe::detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(parameter_info{"router.weight"}, weight());
    if constexpr (Bias)
      visit(parameter_info{"router.bias", false}, bias_.view());
  }
  void initialize(seed key, std::uint64_t stream, const initialization& options) {
    fill_normal(vector_view<T>(weight_.data(), weight_.size()), options.router_stddev, key, stream);
    bias_.set_zero();
  }

private:
  matrix<T> weight_, bias_;
  Function function_;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
