// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/execution/context.hpp>

#include <concepts>
#include <cstddef>

namespace hmoe {

/// What a dispatch strategy needs of a set of experts, numbered from 0:
///   value_type, size(), d_model()
///   width(e)                                 hidden width, for capacities that depend on it
///   saved_per_row(e)                         values per row that forward keeps for backward
///   forward_rows(ctx, rows)                  y of every expert_rows, and what is to be kept
///   backward_rows(ctx, rows, gradients)      dx =, gradients +=
///   gathers_rows(ctx)                        whether they read tokens where they are and add to them, in training too
///   lay_out_forward_rows(dry, limits, scatters), lay_out_backward_rows(dry, limits)
///                                            take from dry.workspace(), which only counts, what those take for rows
///                                            within the limits
template <class E, class Context>
concept dispatched_experts =
    execution_context<Context> &&
    requires(const E& experts, E& gradients, const Context& ctx, std::size_t e,
             vector_view<const expert_rows<typename E::value_type>> rows, const row_limits& limits) {
      requires float_or_double<typename E::value_type>;
      { experts.size() } -> std::convertible_to<std::size_t>;
      { experts.d_model() } -> std::convertible_to<std::size_t>;
      { experts.width(e) } -> std::convertible_to<std::size_t>;
      { experts.saved_per_row(e) } -> std::convertible_to<std::size_t>;
      experts.forward_rows(ctx, rows);
      experts.backward_rows(ctx, rows, gradients);
      { experts.gathers_rows(ctx) } -> std::convertible_to<bool>;
      experts.lay_out_forward_rows(ctx, limits, false);
      experts.lay_out_backward_rows(ctx, limits);
    };

/// The batch that a pass is laid out for: the largest that it may meet.
struct batch_limits {
  std::size_t tokens = 0;
  std::size_t entries = 0;   ///< (token, expert) pairs of the assignment
  std::size_t routed = 0;    ///< experts that compete for tokens; those behind them are shared and get every token
  bool some_padding = false; ///< whether some tokens may be padding
};

/// How rows travel between tokens and experts. A strategy is copyable, has no state that a pass changes, and offers
///   forward(ctx, experts, x, y, tape)        y = Σ weight · expert(x), for the assignment in the tape; records what
///                                            backward needs when tape.recording()
///   backward(ctx, experts, tape, dy, dx, d_weights, gradients)
///                                            dx =, d_weights[entries] =, gradients +=
///   slots(experts, limits)                   how many expert rows it computes at most for batches within the
///                                            batch_limits
///   lay_out_forward(dry, experts, tape, limits), lay_out_backward(dry, experts, tape, limits)
///                                            take what the passes take at most for such batches:
///                                            scratch from dry.workspace(), and the plan and the outputs of experts in
///                                            a tape that does not record. The tape tells whether it records and
///                                            whether weights are on the input. All of this memory only counts
///                                            (hmoe::dry_run): nothing of it may be touched.
/// Optional, for strategies that run on several ranks (hmoe/parallel/across_ranks.hpp): join(check, experts, router),
/// which layers call when they are made and which returns the widths of all experts; join_initialization(seed,
/// options); run_pass(pass), which runs a whole pass of the layer.
/// Concepts cannot range over contexts, so this one is checked where a layer is run.
template <class D, class Context, class Experts>
concept dispatcher =
    requires(const D& dispatch, const Context& ctx, const Experts& experts, Experts& gradients,
             matrix_view<const typename Experts::value_type> in, matrix_view<typename Experts::value_type> out,
             tape<typename Experts::value_type>& tape, vector_view<typename Experts::value_type> d_weights) {
      dispatch.forward(ctx, experts, in, out, tape);
      dispatch.backward(ctx, experts, tape, in, out, d_weights, gradients);
      { dispatch.slots(experts, batch_limits{}) } -> std::convertible_to<std::size_t>;
      dispatch.lay_out_forward(ctx, experts, tape, batch_limits{});
      dispatch.lay_out_backward(ctx, experts, tape, batch_limits{});
    };

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
