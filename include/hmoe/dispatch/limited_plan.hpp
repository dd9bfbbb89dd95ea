// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/build_plan.hpp>
#include <hmoe/dispatch/capacity.hpp>
#include <hmoe/dispatch/drop_order.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <limits>
#include <memory_resource>
#include <numeric>
#include <utility>

namespace hmoe::dispatch {

/// What becomes of the rows that an expert has left below its limit.
enum class spare_rows { none, padding };

/// What build_limited_plan takes from the workspace: nothing without a capacity.
template <class Capacity, class Order> struct planning_memory {
  planning_memory(std::pmr::memory_resource* memory, std::size_t routed, std::size_t experts, std::size_t entries)
      : widths(has_limit ? routed : 0, memory), rows(has_limit ? experts : 0, memory),
        limits(has_limit ? experts : 0, memory), next(has_limit ? experts : 0, memory),
        priorities(has_limit && by_priority ? entries : 0, memory), ranks(has_limit ? entries : 0, memory) {}

  static constexpr bool has_limit = !std::same_as<Capacity, capacity::no_capacity>;
  static constexpr bool by_priority = !std::same_as<Order, capacity::keep_first>;
  buffer<std::size_t> widths, rows, limits, next; ///< by expert
  buffer<double> priorities;                      ///< by entry
  buffer<index_t> ranks;
};

namespace detail {

/// Marks what expert e drops of its slots [first, first + ranks.size()): all but the `limit` of the highest priority.
template <class T, class Order>
void mark_dropped(const Order& order, const tape<T>& tape, std::size_t first, std::size_t limit,
                  vector_view<double> priorities, vector_view<index_t> ranks, plan& by_expert) {
  std::iota(ranks.begin(), ranks.end(), index_t{0});
  if constexpr (!std::same_as<Order, capacity::keep_first>) { // slots are in the order of tokens already
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      const double p = order.priority(tape, by_expert.tokens()[first + i], by_expert.entries()[first + i]);
      priorities[i] = std::isnan(p) ? -std::numeric_limits<double>::infinity() : p;
    }
    std::nth_element(ranks.begin(), ranks.begin() + limit, ranks.end(), [&](index_t a, index_t b) {
      return priorities[a] != priorities[b] ? priorities[a] > priorities[b] : a < b;
    });
  }
  for (std::size_t i = limit; i < ranks.size(); ++i)
    by_expert.slots()[by_expert.entries()[first + ranks[i]]] = no_index;
}

} // namespace detail

/// The plan of the tape's assignment in which no expert has more rows than `limit` allows: entries beyond are dropped
/// in `order`, and where `spare` says so, experts with a limit get padding slots up to it. Tokens ascend within an
/// expert. The experts beyond the columns of the router's trace are shared: no limit, no padding.
template <class Experts, class T, class Capacity, class Order>
void build_limited_plan(const Experts& experts, tape<T>& tape, const Capacity& limit, const Order& order,
                        spare_rows spare, std::pmr::memory_resource* memory) {
  const auto& assigned = std::as_const(tape).assignment();
  plan& by_expert = tape.plan();
  build_plan(assigned, experts.size(), by_expert);
  if constexpr (!std::same_as<Capacity, capacity::no_capacity>) {
    const std::size_t count = experts.size();
    const std::size_t routed = tape.trace().expert_count() == 0 ? count : tape.trace().expert_count();
    planning_memory<Capacity, Order> scratch(memory, routed, count, assigned.size());
    auto &widths = scratch.widths, &rows = scratch.rows, &limits = scratch.limits, &next = scratch.next;
    for (std::size_t e = 0; e < count; ++e)
      rows[e] = by_expert.rows_of(e);
    for (std::size_t e = 0; e < routed; ++e)
      widths[e] = experts.width(e);
    limits.fill(capacity::unlimited);
    limit.limits(capacity::demand{assigned.valid_tokens(), by_expert.offsets()[routed], widths.view(),
                                  std::as_const(rows).view().subview(0, routed)},
                 limits.view().subview(0, routed));

    std::size_t total = 0, kept = 0;
    for (std::size_t e = 0; e < count; ++e) {
      if (limits[e] != capacity::unlimited)
        limits[e] = std::min(limits[e], assigned.valid_tokens());
      if (rows[e] > limits[e])
        detail::mark_dropped(order, std::as_const(tape), by_expert.offsets()[e], limits[e], scratch.priorities.view(),
                             scratch.ranks.view().subview(0, rows[e]), by_expert);
      rows[e] = std::min(rows[e], limits[e]);
      kept += rows[e];
      if (spare == spare_rows::padding && limits[e] != capacity::unlimited)
        rows[e] = limits[e];
      total += rows[e];
    }
    require(total < no_index, "a plan of ", total, " slots is too long for 32-bit slots");
    if (kept == assigned.size() && total == kept)
      return;

    // The slots of kept entries move together, in the order that they are in.
    by_expert.resize_slots(total, total - kept);
    std::fill(by_expert.tokens().begin(), by_expert.tokens().end(), no_index);
    std::fill(by_expert.entries().begin(), by_expert.entries().end(), no_index);
    for (std::size_t e = 0; e < count; ++e) {
      next[e] = by_expert.offsets()[e];
      by_expert.offsets()[e + 1] = static_cast<index_t>(next[e] + rows[e]);
    }
    for (std::size_t t = 0; t < assigned.tokens(); ++t)
      for (index_t a = assigned.offsets()[t]; a < assigned.offsets()[t + 1]; ++a)
        if (by_expert.slots()[a] != no_index) {
          const std::size_t slot = next[assigned.experts()[a]]++;
          by_expert.tokens()[slot] = static_cast<index_t>(t);
          by_expert.entries()[slot] = a;
          by_expert.slots()[a] = static_cast<index_t>(slot);
        }
  }
}

} // namespace hmoe::dispatch
