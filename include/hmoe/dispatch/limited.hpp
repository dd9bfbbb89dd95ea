// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/after_drops.hpp>
#include <hmoe/dispatch/capacity.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/drop_order.hpp>
#include <hmoe/dispatch/limited_plan.hpp>
#include <hmoe/dispatch/permuted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/probe.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <utility>
#include <vector>

namespace hmoe::dispatch {

/// What `sorted` and `padded` have in common: the passes of permuted.hpp over a plan that a capacity may limit.
template <class Capacity, class Order, spare_rows Spare, class After = capacity::keep_weights> class limited {
  static_assert(
      capacity_policy<Capacity>,
      "hmoe::dispatch: Capacity does not model hmoe::capacity_policy: it needs limits(capacity::demand, "
      "vector_view<std::size_t>) const (see hmoe/dispatch/capacity.hpp); pass for instance capacity::by_factor{1.25}");
  static_assert(drop_order<Order>,
                "hmoe::dispatch: Order does not model hmoe::drop_order: it needs priority(tape, token, entry) const "
                "(see hmoe/dispatch/drop_order.hpp); pass for instance capacity::keep_first{}");

  static constexpr bool renormalizes = std::same_as<After, capacity::renormalize_kept>;
  static_assert(renormalizes || std::same_as<After, capacity::keep_weights>,
                "hmoe::dispatch: After is neither capacity::keep_weights nor capacity::renormalize_kept");

public:
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& tape) const {
    {
      [[maybe_unused]] probes::watch<Context> watched;
      if constexpr (probes::observed<Context>)
        watched.begin(ctx, {probes::stage::plan, probes::direction::forward, tape.assignment().size()});
      dispatch::build_limited_plan(experts, tape, capacity_, order_, Spare, &ctx.workspace());
    }
    if constexpr (renormalizes) {
      auto originals = renormalized_weights<T>::memory(&ctx.workspace(), tape.assignment().size());
      const renormalized_weights<T> scope(tape, originals);
      permuted::forward(ctx, experts, x, y, tape);
    } else {
      permuted::forward(ctx, experts, x, y, tape);
    }
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void backward(const Context& ctx, const Experts& experts, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
                vector_view<T> d_weights, Experts& gradients) const {
    if constexpr (renormalizes) {
      auto originals = renormalized_weights<T>::memory(&ctx.workspace(), tape.assignment().size());
      const renormalized_weights<T> scope(tape, originals);
      permuted::backward(ctx, experts, tape, dy, dx, d_weights, gradients);
      scope.backward(d_weights);
    } else {
      permuted::backward(ctx, experts, tape, dy, dx, d_weights, gradients);
    }
  }

  template <class Experts> [[nodiscard]] std::size_t slots(const Experts& experts, const batch_limits& batch) const {
    return most_rows(experts, batch).total;
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_forward(const Context& dry, const Experts& experts, tape<T>& tape, const batch_limits& batch) const {
    const planning_memory<Capacity, Order> planning(&dry.workspace(), experts.size(), experts.size(), batch.entries);
    const row_limits rows = most_rows(experts, batch);
    if (!tape.recording()) {
      tape.plan().reserve(experts.size(), batch.entries, batch.entries);
      tape.plan().resize_slots(rows.total, 0);
    }
    const auto originals = renormalized_weights<T>::memory(&dry.workspace(), renormalizes ? batch.entries : 0);
    permuted::lay_out_forward(dry, experts, tape, rows);
  }
  template <execution_context Context, dispatched_experts<Context> Experts, class T>
  void lay_out_backward(const Context& dry, const Experts& experts, tape<T>&, const batch_limits& batch) const {
    const auto originals = renormalized_weights<T>::memory(&dry.workspace(), renormalizes ? batch.entries : 0);
    permuted::lay_out_backward<T>(dry, experts, most_rows(experts, batch));
  }

protected:
  limited() = default;
  limited(Capacity limit, Order order) : capacity_(std::move(limit)), order_(std::move(order)) {
    if constexpr (requires { capacity_.validate(); })
      capacity_.validate();
  }

private:
  /// The rows of any batch: no limit is higher than where every token asks for every expert.
  template <class Experts> [[nodiscard]] row_limits most_rows(const Experts& experts, const batch_limits& batch) const {
    if constexpr (std::same_as<Capacity, capacity::no_capacity>) {
      return {batch.entries, batch.tokens};
    } else {
      std::vector<std::size_t> widths(batch.routed);
      for (std::size_t e = 0; e < batch.routed; ++e)
        widths[e] = experts.width(e);
      return most_rows(widths, experts.size() - batch.routed, batch);
    }
  }
  /// Of experts of these widths, and `shared` ones beyond them.
  [[nodiscard]] row_limits most_rows(const std::vector<std::size_t>& widths, std::size_t shared,
                                     const batch_limits& batch) const
    requires(!std::same_as<Capacity, capacity::no_capacity>)
  {
    const std::size_t tokens = batch.tokens;
    std::vector<std::size_t> rows(batch.routed, tokens), limits(batch.routed, capacity::unlimited);
    const auto view = [](auto& values) { return vector_view(values.data(), values.size()); };
    capacity_.limits(capacity::demand{tokens, batch.entries - shared * tokens, view(widths), view(rows)}, view(limits));
    std::size_t limited_rows = 0, unlimited = shared, each = shared == 0 ? 0 : tokens;
    for (const std::size_t limit : limits) {
      if (limit == capacity::unlimited)
        ++unlimited;
      else
        limited_rows += std::min(limit, tokens);
      each = std::max(each, std::min(limit, tokens));
    }
    const std::size_t total = limited_rows + std::min(unlimited * tokens, batch.entries);
    return {Spare == spare_rows::none ? std::min(total, batch.entries) : total, each};
  }

  [[no_unique_address]] Capacity capacity_;
  [[no_unique_address]] Order order_;
};

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
