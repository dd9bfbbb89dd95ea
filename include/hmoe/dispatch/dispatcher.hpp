// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/tape.hpp>

#include <cstddef>

namespace hmoe {

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
                              matrix_view<typename Experts::value_type> out, tape<typename Experts::value_type>& record,
                              vector_view<typename Experts::value_type> d_weights, std::size_t n) {
  dispatch.forward(ctx, experts, in, out, record);
  dispatch.backward(ctx, experts, record, in, out, d_weights, gradients);
  { dispatch.slots(n, n, n) } -> std::convertible_to<std::size_t>;
  { dispatch.workspace_rows(n, n) } -> std::convertible_to<std::size_t>;
};

} // namespace hmoe
