// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/routing/score_functions.hpp>

#include <algorithm>

namespace hmoe::routing {

namespace detail {

/// Rows or columns of a router product that one task computes: work is divided by size, never by threads.
inline constexpr std::size_t score_block = 64;

/// f(first, count) over blocks of `total`.
template <class Context, class F> void for_each_block(const Context& ctx, std::size_t total, F&& f) {
  ctx.executor().for_each((total + score_block - 1) / score_block, [&](std::size_t task, std::size_t) {
    const std::size_t first = task * score_block;
    f(first, std::min(score_block, total - first));
  });
}

/// out[T×n] = x[T×d] · weightᵀ
template <class Context, class T>
void project(const Context& ctx, matrix_view<const T> x, matrix_view<const T> weight, matrix_view<T> out) {
  for_each_block(ctx, x.rows(), [&](std::size_t first, std::size_t rows) {
    ctx.backend().multiply_transposed(x.row_block(first, rows), weight, out.row_block(first, rows));
  });
}

/// d_weight += d_outᵀ x;  dx += d_out · weight
template <class Context, class T>
void project_backward(const Context& ctx, matrix_view<const T> x, matrix_view<const T> weight,
                      matrix_view<const T> d_out, matrix_view<T> dx, matrix_view<T> d_weight) {
  for_each_block(ctx, x.rows(), [&](std::size_t first, std::size_t rows) {
    ctx.backend().accumulate(d_out.row_block(first, rows), weight, dx.row_block(first, rows));
  });
  for_each_block(ctx, x.cols(), [&](std::size_t first, std::size_t cols) { // each task owns its columns: no race
    ctx.backend().accumulate_transposed(d_out, x.column_block(first, cols), d_weight.column_block(first, cols));
  });
}

} // namespace detail

/// logits = W_r x, W_r [N×d], then `Function` makes scores of them: P = softmax(W_r x) by default, the router of HMoE
/// and of most models. Parameter: weight.
template <real T, class Function = softmax> class linear {
  static_assert(score_function<Function, T>,
                "hmoe::routing::linear: Function does not model hmoe::score_function: it needs forward(z, p) and "
                "backward(z, p, d_p, d_z) const over one row (see hmoe/routing/score_functions.hpp)");

public:
  using value_type = T;
  using function_type = Function;

  linear(std::size_t d_model, std::size_t experts, Function function = {})
      : weight_(experts, d_model), function_(function) {
    require(d_model >= 1 && experts >= 1, "a router from d_model = ", d_model, " to ", experts,
            " experts: both must be at least 1");
  }

  [[nodiscard]] std::size_t d_model() const noexcept { return weight_.cols(); }
  [[nodiscard]] static constexpr std::size_t saved_per_token() noexcept { return 0; }
  [[nodiscard]] std::size_t size() const noexcept { return weight_.rows(); }
  [[nodiscard]] const Function& function() const noexcept { return function_; }
  [[nodiscard]] matrix_view<T> weight() noexcept { return weight_; }
  [[nodiscard]] matrix_view<const T> weight() const noexcept { return weight_; }

  /// logits[T×N] = x[T×d] W_rᵀ
  template <class Context> void forward(const Context& ctx, matrix_view<const T> x, router_trace<T>& trace) const {
    detail::project(ctx, x, weight(), trace.logits());
  }
  /// gradients.weight += d_logitsᵀ x;  dx += d_logits W_r
  template <class Context>
  void backward(const Context& ctx, matrix_view<const T> x, const router_trace<T>&, matrix_view<const T> d_logits,
                matrix_view<T> dx, linear& gradients) const {
    detail::project_backward(ctx, x, weight(), d_logits, dx, gradients.weight());
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) { visit(parameter_info{"router.weight"}, weight()); }
  void initialize(seed key, std::uint64_t stream, const initialization& options) {
    fill_normal(vector_view<T>(weight_.data(), weight_.size()), options.router_stddev, key, stream);
  }

private:
  matrix<T> weight_;
  Function function_;
};

} // namespace hmoe::routing
