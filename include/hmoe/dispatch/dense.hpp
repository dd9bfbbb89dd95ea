// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/row_operations.hpp>

#include <algorithm>
#include <utility>

namespace hmoe::dispatch {

/// Every expert on every token, masked by the assignment afterwards: no plan, no permutation, N/K times the work.
/// The oracle that the other strategies are tested against.
struct dense {
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& tape) const {
    const std::size_t tokens = x.rows();
    if (tape.recording()) {
      tape.expert_output().resize_for_overwrite(experts.size() * tokens, x.cols());
      tape.layout_activations(
          experts.size(), [&](std::size_t) { return tokens; }, [&](std::size_t e) { return experts.saved_per_row(e); });
    } else {
      tape.expert_output().resize_for_overwrite(tokens, x.cols());
    }
    for (std::size_t t = 0; t < tokens; ++t)
      std::fill(y.row(t).begin(), y.row(t).end(), T(0));
    for (std::size_t e = 0; e < experts.size(); ++e) {
      const typename Context::workspace_scope scope(ctx.workspace());
      const matrix_view<T> out = tape.expert_output().view().row_block(tape.recording() ? e * tokens : 0, tokens);
      matrix<T> scaled(&ctx.workspace());
      const auto work = expert_rows<T>::forward(e, expert_input(ctx, tape, x, e, scaled), out,
                                                tape.recording() ? tape.activations(e, tokens) : matrix_view<T>{});
      experts.forward_rows(ctx, vector_view<const expert_rows<T>>(&work, 1));
      for (std::size_t t = 0; t < tokens; ++t)
        if (const std::size_t a = entry(std::as_const(tape).assignment(), t, e); a != none)
          rows::add_scaled(ctx.backend(), tape.weights_on_input() ? T(1) : tape.assignment().weights()[a],
                           vector_view<const T>(out.row(t)), y.row(t));
    }
  }

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
                vector_view<T> d_weights, Experts& gradients) const {
    const std::size_t tokens = dy.rows();
    for (std::size_t t = 0; t < tokens; ++t)
      std::fill(dx.row(t).begin(), dx.row(t).end(), T(0));
    for (std::size_t e = 0; e < experts.size(); ++e) {
      const typename Context::workspace_scope scope(ctx.workspace());
      matrix<T> d_out(&ctx.workspace()), d_rows(&ctx.workspace());
      d_out.resize_for_overwrite(tokens, dy.cols());
      d_rows.resize_for_overwrite(tokens, dy.cols());
      const matrix_view<const T> x = std::as_const(tape).input();
      matrix<T> scaled(&ctx.workspace());
      for (std::size_t t = 0; t < tokens; ++t) {
        const std::size_t a = entry(std::as_const(tape).assignment(), t, e);
        const T weight = a == none ? T(0) : tape.weights_on_input() ? T(1) : tape.assignment().weights()[a];
        if (a == none) // whatever dy is, NaN in padding rows too
          std::fill(d_out.row(t).begin(), d_out.row(t).end(), T(0));
        else
          rows::copy_scaled(ctx.backend(), weight, dy.row(t), d_out.row(t));
        if (a != none && !tape.weights_on_input())
          d_weights[a] = rows::dot(ctx.backend(), dy.row(t), std::as_const(tape).expert_output().row(e * tokens + t));
      }
      const auto work = expert_rows<T>::backward(e, expert_input(ctx, tape, x, e, scaled), tape.activations(e, tokens),
                                                 d_out.view(), d_rows.view());
      experts.backward_rows(ctx, vector_view<const expert_rows<T>>(&work, 1), gradients);
      for (std::size_t t = 0; t < tokens; ++t) {
        const std::size_t a = entry(std::as_const(tape).assignment(), t, e);
        if (a == none)
          continue;
        if (tape.weights_on_input()) { // scaled before it is added, as everywhere: no fused multiply-add may differ
          d_weights[a] = rows::dot(ctx.backend(), std::as_const(d_rows).row(t), x.row(t));
          rows::copy_scaled(ctx.backend(), tape.assignment().weights()[a], std::as_const(d_rows).row(t), d_rows.row(t));
        }
        rows::add_scaled(ctx.backend(), T(1), std::as_const(d_rows).row(t), dx.row(t));
      }
    }
  }

  [[nodiscard]] static std::size_t slots(std::size_t tokens, std::size_t, std::size_t experts) noexcept {
    return tokens * experts;
  }
  [[nodiscard]] static std::size_t workspace_rows(std::size_t tokens, std::size_t) noexcept { return 3 * tokens; }
  [[nodiscard]] static std::size_t rows_at_once(std::size_t tokens, std::size_t) noexcept { return tokens; }

private:
  static constexpr std::size_t none = static_cast<std::size_t>(-1);

  /// x itself, or each row times its weight for expert e where weights are on the input; 0 in the rows of padding
  /// tokens.
  template <execution_context Context, class T>
  static matrix_view<const T> expert_input(const Context& ctx, const tape<T>& tape, matrix_view<const T> x,
                                           std::size_t e, matrix<T>& scaled) {
    if (!tape.weights_on_input() && tape.assignment().valid_tokens() == x.rows())
      return x;
    scaled.resize_for_overwrite(x.rows(), x.cols());
    for (std::size_t t = 0; t < x.rows(); ++t) {
      const std::size_t a = entry(tape.assignment(), t, e);
      if (!tape.trace().is_valid(t) || (a == none && tape.weights_on_input()))
        std::fill(scaled.row(t).begin(), scaled.row(t).end(), T(0));
      else
        rows::copy_scaled(ctx.backend(), tape.weights_on_input() ? tape.assignment().weights()[a] : T(1), x.row(t),
                          scaled.row(t));
    }
    return scaled.view();
  }

  /// The entry that sends token t to expert e.
  template <class T> static std::size_t entry(const assignment<T>& assigned, std::size_t t, std::size_t e) noexcept {
    for (std::size_t a = assigned.offsets()[t]; a < assigned.offsets()[t + 1]; ++a)
      if (assigned.experts()[a] == e)
        return a;
    return none;
  }
};

} // namespace hmoe::dispatch
