// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/capacity.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/drop_order.hpp>
#include <hmoe/dispatch/limited_plan.hpp>
#include <hmoe/dispatch/permuted.hpp>
#include <hmoe/execution/context.hpp>

#include <cstddef>
#include <utility>

namespace hmoe::dispatch {

/// What `sorted` and `padded` have in common: the passes of permuted.hpp over a plan that a capacity may limit.
template <class Capacity, class Order, spare_rows Spare> class limited {
  static_assert(
      capacity_policy<Capacity>,
      "hmoe::dispatch: Capacity does not model hmoe::capacity_policy: it needs limits(capacity::demand, "
      "vector_view<std::size_t>) const (see hmoe/dispatch/capacity.hpp); pass for instance capacity::by_factor{1.25}");
  static_assert(drop_order<Order>,
                "hmoe::dispatch: Order does not model hmoe::drop_order: it needs priority(tape, token, entry) const "
                "(see hmoe/dispatch/drop_order.hpp); pass for instance capacity::keep_first{}");

public:
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& tape) const {
    dispatch::build_limited_plan(experts, tape, capacity_, order_, Spare, &ctx.workspace());
    permuted::forward(ctx, experts, x, y, tape);
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
                vector_view<T> d_weights, Experts& gradients) const {
    permuted::backward(ctx, experts, tape, dy, dx, d_weights, gradients);
  }

  [[nodiscard]] static std::size_t workspace_rows(std::size_t, std::size_t slots) noexcept { return 3 * slots; }
  [[nodiscard]] static std::size_t planning_bytes(std::size_t entries, std::size_t experts) noexcept {
    return limited_plan_bytes<Capacity>(entries, experts);
  }

protected:
  limited() = default;
  limited(Capacity limit, Order order) : capacity_(std::move(limit)), order_(std::move(order)) {
    if constexpr (requires { capacity_.validate(); })
      capacity_.validate();
  }

  [[no_unique_address]] Capacity capacity_;
  [[no_unique_address]] Order order_;
};

} // namespace hmoe::dispatch
