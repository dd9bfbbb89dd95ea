// SPDX-License-Identifier: MIT
// A dispatch strategy of one's own beside the shipped ones:
//   scripts/bench dispatch --quick --strategy examples/own_dispatch/blocks_when_hot.cpp
// The file may lie anywhere; no build file names it. docs/dispatch.md, "Compare your own".
#include <hmoe/core/buffer.hpp>
#include <hmoe/dispatch/blocked.hpp>
#include <hmoe/dispatch/sorted.hpp>

#include "dispatch/registration.hpp"

#include <algorithm>
#include <cstddef>

using namespace hmoe;

/// Blocks of 64 rows where one expert has more than a quarter of them, else whole experts: a hot expert becomes several
/// pieces of work, and even loads read each expert's weights once.
struct blocks_when_hot {
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& tape) const {
    if (busiest(ctx, experts, tape) * 4 > tape.assignment().size())
      blocks.forward(ctx, experts, x, y, tape);
    else
      whole.forward(ctx, experts, x, y, tape);
  }
  // Both leave the same in the tape, and compute gradients in the same way.
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
                vector_view<T> d_weights, Experts& gradients) const {
    whole.backward(ctx, experts, tape, dy, dx, d_weights, gradients);
  }
  template <class Experts> std::size_t slots(const Experts& experts, const batch_limits& limits) const {
    return whole.slots(experts, limits);
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_forward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    {
      const typename Context::workspace_scope scope(dry.workspace());
      const buffer<std::size_t> rows(experts.size(), &dry.workspace());
    }
    {
      const typename Context::workspace_scope scope(dry.workspace());
      whole.lay_out_forward(dry, experts, tape, limits);
    }
    blocks.lay_out_forward(dry, experts, tape, limits);
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_backward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    whole.lay_out_backward(dry, experts, tape, limits);
  }

private:
  template <execution_context Context, class Experts, class T>
  static std::size_t busiest(const Context& ctx, const Experts& experts, const tape<T>& tape) {
    const typename Context::workspace_scope scope(ctx.workspace());
    buffer<std::size_t> rows(experts.size(), &ctx.workspace());
    rows.fill(0);
    for (const index_t e : tape.assignment().experts())
      ++rows[e];
    return *std::ranges::max_element(rows.view());
  }

  dispatch::sorted<> whole;
  dispatch::blocked<64> blocks;
};

const benchmarks::registration registered{"blocks_when_hot", blocks_when_hot{}};
