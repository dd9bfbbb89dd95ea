// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

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
        slots(has_limit ? experts : 0, memory), priorities(has_limit && by_priority ? entries : 0, memory),
        ranks(has_limit ? entries : 0, memory) {}

  static constexpr bool has_limit = !std::same_as<Capacity, capacity::no_capacity>;
  static constexpr bool by_priority = !std::same_as<Order, capacity::keep_first>;
  buffer<std::size_t> widths, rows, limits, next, slots; ///< by expert
  buffer<double> priorities;                             ///< by entry
  buffer<index_t> ranks;
};

namespace detail {

/// The tokens of a group that has limits of its own: the whole batch, unless the capacity is per group.
template <class Capacity> [[nodiscard]] std::size_t group_size(const Capacity& limit, std::size_t tokens) {
  if constexpr (capacity::is_per_group<Capacity>) {
    limit.validate();
    return std::min(limit.tokens, tokens);
  } else {
    return tokens;
  }
}

template <class Capacity>
void limits_of_group(const Capacity& limit, const capacity::demand& group, vector_view<std::size_t> limits) {
  if constexpr (capacity::is_per_group<Capacity>)
    limit.inner.limits(group, limits);
  else
    limit.limits(group, limits);
}
/// How many tokens of [from, to) are not padding.
template <class T>
[[nodiscard]] std::size_t valid_tokens(const tape<T>& tape, std::size_t from, std::size_t to) noexcept {
  if (from == 0 && to == tape.assignment().tokens())
    return tape.assignment().valid_tokens();
  std::size_t count = 0;
  for (std::size_t t = from; t < to; ++t)
    count += tape.trace().is_valid(t) ? 1 : 0;
  return count;
}

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
/// Of a plan that has every entry, for experts of scratch.widths and, beyond them, shared ones.
template <class T, class Capacity, class Order>
void limit_plan(tape<T>& tape, const Capacity& limit, const Order& order, spare_rows spare,
                planning_memory<Capacity, Order>& scratch) {
  const auto& assigned = std::as_const(tape).assignment();
  plan& by_expert = tape.plan();
  auto &widths = scratch.widths, &rows = scratch.rows, &limits = scratch.limits, &next = scratch.next,
       &slots = scratch.slots;
  const std::size_t count = rows.size(), routed = widths.size();
  for (std::size_t e = 0; e < count; ++e) {
    next[e] = by_expert.offsets()[e];
    slots[e] = 0;
  }

  std::size_t total = 0, kept = 0;
  const std::size_t size = detail::group_size(limit, assigned.tokens());
  for (std::size_t from = 0; from == 0 || from < assigned.tokens(); from += size) { // slots ascend by token
    const std::size_t to = std::min(from + size, assigned.tokens());
    const std::size_t valid = detail::valid_tokens(tape, from, to);
    std::size_t entries = 0;
    for (std::size_t e = 0; e < count; ++e) {
      std::size_t end = to == assigned.tokens() ? by_expert.offsets()[e + 1] : next[e];
      while (end < by_expert.offsets()[e + 1] && by_expert.tokens()[end] < to)
        ++end;
      rows[e] = end - next[e];
      entries += e < routed ? rows[e] : 0;
    }
    limits.fill(capacity::unlimited);
    detail::limits_of_group(
        limit, capacity::demand{valid, entries, widths.view(), std::as_const(rows).view().subview(0, routed)},
        limits.view().subview(0, routed));
    for (std::size_t e = 0; e < count; ++e) {
      if (limits[e] != capacity::unlimited)
        limits[e] = std::min(limits[e], valid);
      if (rows[e] > limits[e])
        detail::mark_dropped(order, std::as_const(tape), next[e], limits[e], scratch.priorities.view(),
                             scratch.ranks.view().subview(0, rows[e]), by_expert);
      const std::size_t stay = std::min(rows[e], limits[e]);
      kept += stay;
      slots[e] += spare == spare_rows::padding && limits[e] != capacity::unlimited ? limits[e] : stay;
      next[e] += rows[e];
    }
    if (size == 0)
      break; // no tokens
  }
  for (std::size_t e = 0; e < count; ++e)
    total += slots[e];
  require(total < no_index, "a plan of ", total, " slots is too long for 32-bit slots");
  if (kept == assigned.size() && total == kept)
    return;

  // The slots of kept entries move together, in the order that they are in.
  by_expert.resize_slots(total, total - kept);
  std::fill(by_expert.tokens().begin(), by_expert.tokens().end(), no_index);
  std::fill(by_expert.entries().begin(), by_expert.entries().end(), no_index);
  for (std::size_t e = 0; e < count; ++e) {
    next[e] = by_expert.offsets()[e];
    by_expert.offsets()[e + 1] = static_cast<index_t>(next[e] + slots[e]);
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
} // namespace detail

/// The plan of the tape's assignment in which no expert has more rows than `limit` allows: entries beyond are dropped
/// in `order`, and where `spare` says so, experts with a limit get padding slots up to it. Tokens ascend within an
/// expert. The experts beyond the columns of the router's trace are shared: no limit, no padding.
template <class Experts, class T, class Capacity, class Order>
void build_limited_plan(const Experts& experts, tape<T>& tape, const Capacity& limit, const Order& order,
                        spare_rows spare, std::pmr::memory_resource* memory) {
  const std::size_t count = experts.size(), entries = std::as_const(tape).assignment().size();
  build_plan(std::as_const(tape).assignment(), count, tape.plan());
  if constexpr (!std::same_as<Capacity, capacity::no_capacity>) {
    const std::size_t routed = tape.trace().expert_count() == 0 ? count : tape.trace().expert_count();
    planning_memory<Capacity, Order> scratch(memory, routed, count, entries);
    for (std::size_t e = 0; e < routed; ++e)
      scratch.widths[e] = experts.width(e);
    detail::limit_plan(tape, limit, order, spare, scratch);
  }
}

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
