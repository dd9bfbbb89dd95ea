// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/blocked.hpp>
#include <hmoe/dispatch/cost_model.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/per_token.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/dispatch/tuned_table.hpp>
#include <hmoe/execution/context.hpp>

#include <cstddef>
#include <utility>

namespace hmoe::dispatch {

/// Picks a dropless strategy for each batch: by the table that dispatch::tune measured, where there is one for these
/// experts and threads, else by the cost model with the limits of a machine (dispatch::measure_machine). The choice is
/// a function of the assignment and of whether the tape records, so backward takes what forward took. All strategies
/// leave the same things in a tape. The memory that it announces is that of the strategy that needs most. Same bits as
/// the other dropless strategies. Of the experts it asks flops_per_row(e), bytes(e), phases_of(ctx) and
/// scatter_copies(ctx) as well: an expert_set has them.
class automatic {
public:
  automatic() = default;
  explicit automatic(const machine_limits& machine) : machine_(machine) {}
  /// hmoe::error for a table that is not in order.
  explicit automatic(tuned_table table, const machine_limits& machine = {})
      : machine_(machine), table_(std::move(table)) {
    table_.validate();
  }
  [[nodiscard]] const machine_limits& machine() const noexcept { return machine_; }
  [[nodiscard]] const tuned_table& table() const noexcept { return table_; }

  /// What it takes for a batch. hmoe::error where the table is of other experts or another number of threads.
  template <execution_context Context, class Experts>
  [[nodiscard]] strategy pick(const Context& ctx, const Experts& experts, const dispatch_load& load) const {
    if (table_.empty())
      return quickest(load, machine_);
    check_shape(ctx, experts);
    return table_.pick(load.tokens, effective_experts(load), load.training);
  }

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& tape) const {
    with(choice(ctx, experts, std::as_const(tape)), [&](const auto& s) { s.forward(ctx, experts, x, y, tape); });
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
                vector_view<T> d_weights, Experts& gradients) const {
    with(choice(ctx, experts, std::as_const(tape)),
         [&](const auto& s) { s.backward(ctx, experts, tape, dy, dx, d_weights, gradients); });
  }

  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_forward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    if (!tape.recording()) { // what strategies have in common; each of them finds it made
      tape.plan().reserve(experts.size(), limits.entries, limits.entries);
      tape.expert_output().resize_for_overwrite(limits.entries, experts.d_model());
    }
    for_each([&](const auto& s) {
      const typename Context::workspace_scope scope(dry.workspace());
      const buffer<expert_work> work(experts.size(), &dry.workspace());
      s.lay_out_forward(dry, experts, tape, limits);
    });
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_backward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& limits) const {
    for_each([&](const auto& s) {
      const typename Context::workspace_scope scope(dry.workspace());
      const buffer<expert_work> work(experts.size(), &dry.workspace());
      s.lay_out_backward(dry, experts, tape, limits);
    });
  }
  template <class Experts> [[nodiscard]] static std::size_t slots(const Experts&, const batch_limits& limits) noexcept {
    return limits.entries;
  }

private:
  template <execution_context Context, class Experts>
  void check_shape(const Context& ctx, const Experts& experts) const {
    const tuned_shape own = shape_of(ctx, experts), &of = table_.shape;
    require(own == of, "dispatch::automatic: the table was tuned for ", of.experts, " experts of d_model ", of.d_model,
            " with ", of.bytes, " bytes on ", of.threads, " threads, this layer has ", own.experts, " of d_model ",
            own.d_model, " with ", own.bytes, " bytes on ", own.threads, ": tune it with dispatch::tune");
  }
  template <execution_context Context, class Experts, class T>
  [[nodiscard]] strategy choice(const Context& ctx, const Experts& experts, const tape<T>& tape) const {
    const typename Context::workspace_scope scope(ctx.workspace());
    buffer<expert_work> work(experts.size(), &ctx.workspace());
    return pick(ctx, experts, load_of(ctx, experts, tape.assignment(), tape.recording(), work.view()));
  }
  template <class F> static void with(strategy which, const F& f) {
    switch (which) {
    case strategy::per_token:
      return f(per_token{});
    case strategy::scattered:
      return f(scattered{});
    case strategy::blocked:
      return f(blocked<automatic_block>{});
    case strategy::looped:
      return f(looped{});
    case strategy::sorted:
    case strategy::dense:
      return f(sorted<>{});
    }
  }
  template <class F> static void for_each(const F& f) {
    for (const strategy s :
         {strategy::per_token, strategy::scattered, strategy::sorted, strategy::blocked, strategy::looped})
      with(s, f);
  }

  machine_limits machine_;
  tuned_table table_;
};

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
