// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/dispatch/after_drops.hpp>
#include <hmoe/dispatch/capacity.hpp>
#include <hmoe/dispatch/drop_order.hpp>
#include <hmoe/dispatch/limited.hpp>
#include <hmoe/dispatch/limited_plan.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <utility>

namespace hmoe::dispatch {

/// sorted with experts of fixed batch sizes, as GShard (arXiv 2006.16668) has them: every expert with a limit runs
/// exactly that many rows (T at most). Tokens beyond are dropped, rows without a token are zeros whose results nobody
/// reads and whose gradients are zero. tape.plan().padding() counts these rows, tape.plan().dropped() the dropped
/// entries. For the same capacity and order the results are those of sorted; what differs is the cost. Shared experts
/// run the T rows that they have.
template <class Capacity, class Order = capacity::keep_first, class After = capacity::keep_weights>
class padded : public limited<Capacity, Order, spare_rows::padding, After> {
  static_assert(!std::same_as<Capacity, capacity::no_capacity>,
                "hmoe::dispatch::padded: Capacity is no_capacity, which gives nothing to pad to: use "
                "capacity::busiest{} to pad without dropping, or dispatch::sorted{} to do neither");
  using base = limited<Capacity, Order, spare_rows::padding, After>;

public:
  explicit padded(Capacity limit, Order order = {}, After = {}) : base(std::move(limit), std::move(order)) {}
};

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
