// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/execution/row_operations.hpp>

#include <algorithm>
#include <cstddef>
#include <memory_resource>
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
    if (tokens == 0)
      return;
    for (std::size_t e = 0; e < experts.size(); ++e) {
      const typename Context::workspace_scope scope(ctx.workspace());
      const matrix_view<T> out = tape.expert_output().view().row_block(tape.recording() ? e * tokens : 0, tokens);
      matrix<T> scaled(&ctx.workspace());
      const auto work = expert_rows<T>::forward(e, expert_input(ctx, tape, x, e, scaled, probes::direction::forward),
                                                out, tape.recording() ? tape.activations(e, tokens) : matrix_view<T>{});
      experts.forward_rows(ctx, vector_view<const expert_rows<T>>(&work, 1));
      [[maybe_unused]] probes::watch<Context> watched;
      if constexpr (probes::observed<Context>)
        watched.begin(ctx, copied(probes::stage::combine, probes::direction::forward, e, 3, x));
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
    if (tokens == 0)
      return;
    for (std::size_t e = 0; e < experts.size(); ++e) {
      const typename Context::workspace_scope scope(ctx.workspace());
      backward_memory<T> memory(&ctx.workspace(), tokens, dy.cols());
      matrix<T>&d_out = memory.d_out, &d_rows = memory.d_rows;
      const matrix_view<const T> x = std::as_const(tape).input();
      matrix<T> scaled(&ctx.workspace());
      {
        [[maybe_unused]] probes::watch<Context> watched;
        if constexpr (probes::observed<Context>)
          watched.begin(ctx, copied(probes::stage::gather, probes::direction::backward, e, 2, dy));
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
      }
      const auto work = expert_rows<T>::backward(e, expert_input(ctx, tape, x, e, scaled, probes::direction::backward),
                                                 tape.activations(e, tokens), d_out.view(), d_rows.view());
      experts.backward_rows(ctx, vector_view<const expert_rows<T>>(&work, 1), gradients);
      [[maybe_unused]] probes::watch<Context> watched;
      if constexpr (probes::observed<Context>)
        watched.begin(ctx, copied(probes::stage::combine, probes::direction::backward, e, 3, dy));
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

  template <class Experts>
  [[nodiscard]] static std::size_t slots(const Experts& experts, const batch_limits& limits) noexcept {
    return limits.tokens * experts.size();
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_forward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    if (!tape.recording())
      tape.expert_output().resize_for_overwrite(limits.tokens, experts.d_model());
    const typename Context::workspace_scope scope(dry.workspace());
    const auto scaled = scaled_memory<T>(dry, experts, tape, limits);
    experts.lay_out_forward_rows(dry, row_limits{limits.tokens, limits.tokens}, false);
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_backward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    const typename Context::workspace_scope scope(dry.workspace());
    const backward_memory<T> memory(&dry.workspace(), limits.tokens, experts.d_model());
    const auto scaled = scaled_memory<T>(dry, experts, tape, limits);
    experts.lay_out_backward_rows(dry, row_limits{limits.tokens, limits.tokens});
  }

private:
  /// Of one expert.
  template <class T> struct backward_memory {
    backward_memory(std::pmr::memory_resource* memory, std::size_t tokens, std::size_t d_model)
        : d_out(matrix<T>::for_overwrite(tokens, d_model, memory)),
          d_rows(matrix<T>::for_overwrite(tokens, d_model, memory)) {}

    matrix<T> d_out, d_rows;
  };
  /// What expert_input takes.
  template <class T, execution_context Context, class Experts>
  static matrix<T> scaled_memory(const Context& dry, const Experts& experts, const tape<T>& tape,
                                 const batch_limits& limits) {
    const bool copies = tape.weights_on_input() || limits.some_padding;
    return matrix<T>::for_overwrite(copies ? limits.tokens : 0, experts.d_model(), &dry.workspace());
  }

  static constexpr std::size_t none = static_cast<std::size_t>(-1);

  /// The event of rows like those of x, of which each is read and written `times` times.
  template <class T>
  static probes::event copied(probes::stage stage, probes::direction direction, std::size_t expert, std::size_t times,
                              matrix_view<const T> x) noexcept {
    return {stage, direction, x.rows(), static_cast<double>(times * x.rows() * x.cols() * sizeof(T)), 0, expert};
  }
  /// x itself, or each row times its weight for expert e where weights are on the input; 0 in the rows of padding
  /// tokens.
  template <execution_context Context, class T>
  static matrix_view<const T> expert_input(const Context& ctx, const tape<T>& tape, matrix_view<const T> x,
                                           std::size_t e, matrix<T>& scaled, probes::direction direction) {
    if (!tape.weights_on_input() && tape.assignment().valid_tokens() == x.rows())
      return x;
    [[maybe_unused]] probes::watch<Context> watched;
    if constexpr (probes::observed<Context>)
      watched.begin(ctx, copied(probes::stage::gather, direction, e, 2, x));
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

#include <hmoe/core/macros_on.hpp>
