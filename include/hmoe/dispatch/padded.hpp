// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/capacity.hpp>
#include <hmoe/dispatch/drop_order.hpp>
#include <hmoe/dispatch/limited_plan.hpp>
#include <hmoe/dispatch/permuted.hpp>

#include <algorithm>
#include <concepts>
#include <utility>

namespace hmoe::dispatch {

/// sorted with experts of fixed batch sizes, as GShard (arXiv 2006.16668) has them: every expert with a limit runs
/// exactly that many rows (T at most). Tokens beyond are dropped, rows without a token are zeros whose results nobody
/// reads and whose gradients are zero. tape.plan().padding() counts these rows, tape.plan().dropped() the dropped
/// entries. For the same capacity and order the results are those of sorted; what differs is the cost. Shared experts
/// run the T rows that they have.
template <class Capacity, class Order = capacity::keep_first> class padded {
  static_assert(
      capacity_policy<Capacity>,
      "hmoe::dispatch::padded: Capacity does not model hmoe::capacity_policy: it needs limits(capacity::load, "
      "vector_view<std::size_t>) const (see hmoe/dispatch/capacity.hpp); pass for instance "
      "capacity::by_factor{1.25}");
  static_assert(!std::same_as<Capacity, capacity::no_capacity>,
                "hmoe::dispatch::padded: Capacity is no_capacity, which gives nothing to pad to: use "
                "capacity::busiest{} to pad without dropping, or dispatch::sorted{} to do neither");
  static_assert(drop_order<Order>,
                "hmoe::dispatch::padded: Order does not model hmoe::drop_order: it needs priority(tape, token, entry) "
                "const (see hmoe/dispatch/drop_order.hpp); pass for instance capacity::keep_first{}");

public:
  explicit padded(Capacity limit, Order order = {}) : capacity_(std::move(limit)), order_(std::move(order)) {
    if constexpr (requires { capacity_.validate(); })
      capacity_.validate();
  }

  template <class Context, class Experts, class T>
  void forward(const Context& ctx, const Experts& experts, matrix_view<const T> x, matrix_view<T> y,
               tape<T>& record) const {
    build_limited_plan(experts, record, capacity_, order_, spare_rows::padding, &ctx.workspace());
    permuted::forward(ctx, experts, x, y, record);
  }
  template <class Context, class Experts, class T>
  void backward(const Context& ctx, const Experts& experts, tape<T>& record, matrix_view<const T> dy, matrix_view<T> dx,
                vector_view<T> d_weights, Experts& gradients) const {
    permuted::backward(ctx, experts, record, dy, dx, d_weights, gradients);
  }

  [[nodiscard]] std::size_t slots(std::size_t tokens, std::size_t entries, std::size_t experts) const {
    if constexpr (requires { capacity_.most_rows(tokens, entries, experts); })
      return std::min<std::size_t>(capacity_.most_rows(tokens, entries, experts), tokens * experts);
    else
      return tokens * experts;
  }
  [[nodiscard]] static std::size_t workspace_rows(std::size_t, std::size_t slots) noexcept { return 3 * slots; }
  [[nodiscard]] static std::size_t planning_bytes(std::size_t entries, std::size_t experts) noexcept {
    return limited_plan_bytes<Capacity>(entries, experts);
  }

private:
  [[no_unique_address]] Capacity capacity_;
  [[no_unique_address]] Order order_;
};

} // namespace hmoe::dispatch
