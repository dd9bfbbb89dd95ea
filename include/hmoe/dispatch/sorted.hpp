// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/dispatch/after_drops.hpp>
#include <hmoe/dispatch/capacity.hpp>
#include <hmoe/dispatch/drop_order.hpp>
#include <hmoe/dispatch/limited.hpp>
#include <hmoe/dispatch/limited_plan.hpp>

#include <cstddef>
#include <utility>

namespace hmoe::dispatch {

/// Permutes the tokens into expert order once, runs all experts at once, and lets each token collect its results:
///   x ─ gather ─▶ rows by expert ─ experts ─▶ outputs by expert ─ combine ─▶ y
/// Pads nothing, and drops nothing unless it is given a capacity: sorted{} is dropless,
/// sorted{capacity::by_factor{1.25}} drops by position, sorted{capacity::by_width{1.25}, capacity::keep_heaviest{}} by
/// weight. A dropped entry adds nothing to y, its weight has gradient 0, and tape.plan().dropped() counts it; the
/// weights of a token's other experts stay as they are, unless capacity::renormalize_kept{} is given as a third part.
template <class Capacity = capacity::no_capacity, class Order = capacity::keep_first,
          class After = capacity::keep_weights>
class sorted : public limited<Capacity, Order, spare_rows::none, After> {
  using base = limited<Capacity, Order, spare_rows::none, After>;

public:
  sorted() = default;
  explicit sorted(Capacity limit, Order order = {}, After = {}) : base(std::move(limit), std::move(order)) {}
};

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
