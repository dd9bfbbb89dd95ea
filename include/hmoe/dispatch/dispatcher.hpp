// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix_view.hpp>
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
template <class E, class Context>
concept dispatched_experts =
    execution_context<Context> && requires(const E& experts, E& gradients, const Context& ctx, std::size_t e,
                                           vector_view<const expert_rows<typename E::value_type>> rows) {
      requires float_or_double<typename E::value_type>;
      { experts.size() } -> std::convertible_to<std::size_t>;
      { experts.d_model() } -> std::convertible_to<std::size_t>;
      { experts.width(e) } -> std::convertible_to<std::size_t>;
      { experts.saved_per_row(e) } -> std::convertible_to<std::size_t>;
      experts.forward_rows(ctx, rows);
      experts.backward_rows(ctx, rows, gradients);
    };

/// How rows travel between tokens and experts. A strategy is copyable, has no state that a pass changes, and offers
///   forward(ctx, experts, x, y, tape)        y = Σ weight · expert(x), for the assignment in the tape; records what
///                                            backward needs when tape.recording()
///   backward(ctx, experts, tape, dy, dx, d_weights, gradients)
///                                            dx =, d_weights[entries] =, gradients +=
///   slots(tokens, entries, experts)          how many expert rows it computes at most
///   workspace_rows(tokens, slots)            how many rows of d_model values it takes from the workspace at most,
///                                            where `slots` is what slots() returned
/// and, where it applies,
///   rows_at_once(tokens, slots)              how many expert rows are in work at the same time (default: all slots)
///   planning_bytes(entries, experts)         further bytes that it takes from the workspace (default: none)
/// Concepts cannot range over contexts, so this one is checked where a layer is run.
template <class D, class Context, class Experts>
concept dispatcher = requires(const D& dispatch, const Context& ctx, const Experts& experts, Experts& gradients,
                              matrix_view<const typename Experts::value_type> in,
                              matrix_view<typename Experts::value_type> out, tape<typename Experts::value_type>& tape,
                              vector_view<typename Experts::value_type> d_weights, std::size_t n) {
  dispatch.forward(ctx, experts, in, out, tape);
  dispatch.backward(ctx, experts, tape, in, out, d_weights, gradients);
  { dispatch.slots(n, n, n) } -> std::convertible_to<std::size_t>;
  { dispatch.workspace_rows(n, n) } -> std::convertible_to<std::size_t>;
};

} // namespace hmoe
