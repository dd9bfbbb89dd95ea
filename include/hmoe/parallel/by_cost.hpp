// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/parallel/improvement.hpp>
#include <hmoe/parallel/packing.hpp>
#include <hmoe/parallel/placement.hpp>
#include <hmoe/parallel/shares.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

namespace hmoe::placement {

namespace detail {

/// max / mean up to which ranks are left as they are so that replicas of an expert may stay on a node.
inline constexpr double even_enough = 1.05;

/// How many changes an improvement tries: fewer where each takes longer.
[[nodiscard]] inline std::size_t evaluations(const item_copies& items) {
  std::size_t copies = 0;
  for (const auto& own : items)
    copies += own.size();
  return std::max<std::size_t>(20, 50000 / (copies + 1));
}

/// The best of packings with more and more copies; of those that are good enough, the one with the fewest. Nothing
/// where not even one copy of each finds room.
[[nodiscard]] inline std::optional<item_copies> balance(const packing& p, double good_enough) {
  const double mean = p.mean();
  std::optional<item_copies> best;
  double least = 0;
  std::size_t most_extra = p.items() * (p.bins - 1);
  const std::size_t slots = std::min(p.slots_per_bin, p.items()) * p.bins;
  most_extra = std::min(most_extra, slots - std::min(slots, p.items()));
  for (std::size_t extra = 0;; extra = std::min(most_extra, extra + std::max<std::size_t>(1, extra / 8))) {
    const auto counts = copy_counts(p, extra);
    for (const double memory : {0.0, 1.0, -1.0}) {
      if (memory < 0 && best)
        continue; // only where nothing else finds room
      if (auto packed = pack(p, counts, std::max(memory, 0.0), memory < 0)) {
        const double most = fullest(divide(*packed, p.bins, mean * 1e-5, 200));
        if (!best || most < least * (1 - 1e-6)) {
          best = std::move(packed);
          least = most;
        }
        if (least <= good_enough * mean)
          return best;
      }
    }
    const std::size_t copies = std::accumulate(counts.begin(), counts.end(), std::size_t{0});
    if (extra == most_extra || copies < p.items() + extra) // no more find memory
      break;
  }
  if (best) {
    const std::size_t tries = evaluations(*best);
    best = improvement(p, *std::move(best), tries).run(good_enough);
  }
  return best;
}

/// As `balance` over nodes first, then in each node over its ranks, so that replicas of an expert that one node can
/// carry stay on it.
[[nodiscard]] inline std::optional<item_copies> balance_nodes(const packing& ranks, std::size_t nodes,
                                                              double good_enough) {
  const std::size_t each = ranks.bins / nodes;
  const auto times = [&](std::size_t amount) { return amount > unlimited / each ? unlimited : amount * each; };
  std::optional<item_copies> best;
  double least = 0;
  const double total_bytes =
      static_cast<double>(std::accumulate(ranks.bytes.begin(), ranks.bytes.end(), std::size_t{0}));
  // How much of the spare memory nodes may use for experts of their own; the rest is for copies within a node.
  for (const double spare : {0.05, 0.1, 0.2, 0.4, 1.0}) {
    packing by_node = ranks;
    by_node.bins = nodes;
    const auto part = [&](std::size_t amount, double needed) {
      const double all = static_cast<double>(amount), even = needed / static_cast<double>(nodes);
      return amount == unlimited || all <= even ? amount : static_cast<std::size_t>(even + (all - even) * spare);
    };
    by_node.bytes_per_bin = part(times(ranks.bytes_per_bin), total_bytes);
    by_node.slots_per_bin = part(times(ranks.slots_per_bin), static_cast<double>(ranks.items()));
    const auto of_nodes = balance(by_node, good_enough);
    if (!of_nodes)
      continue;
    item_copies result(ranks.items());
    bool all_fit = true;
    for (std::size_t n = 0; n < nodes && all_fit; ++n) {
      packing in_node = ranks;
      in_node.bins = each;
      in_node.cost.clear();
      in_node.bytes.clear();
      std::vector<std::size_t> ids;
      for (std::size_t i = 0; i < ranks.items(); ++i)
        for (const item_copy& c : (*of_nodes)[i])
          if (c.bin == n) {
            ids.push_back(i);
            in_node.cost.push_back(c.cost);
            in_node.bytes.push_back(ranks.bytes[i]);
          }
      const auto of_ranks = balance(in_node, good_enough);
      all_fit = of_ranks.has_value();
      for (std::size_t k = 0; k < ids.size() && all_fit; ++k)
        for (const item_copy& c : (*of_ranks)[k])
          result[ids[k]].push_back({n * each + c.bin, c.cost});
    }
    if (!all_fit)
      continue;
    const double most = fullest(bin_costs(result, ranks.bins));
    if (!best || most < least) {
      best = std::move(result);
      least = most;
    }
  }
  // What is left uneven between nodes is worth a few copies that leave theirs.
  if (best && least > even_enough * ranks.mean()) {
    const std::size_t tries = evaluations(*best);
    best = improvement(ranks, *std::move(best), tries).run(std::max(good_enough, even_enough));
  }
  return best;
}

} // namespace detail

/// Places experts so that the FLOPs of the busiest rank are least, as far as memory goes: experts that cost most get
/// further replicas, the replicas are packed, the most costly first onto the least busy rank, each expert's rows are
/// divided among its replicas so that the ranks' loads are as even as the packing allows, and what is left uneven is
/// improved by moving and exchanging replicas. Stops when max / mean is at most `good_enough`, with as few replicas as
/// that takes. With several nodes experts are first divided among the nodes, so that replicas of an expert are on one
/// node unless it costs more than a node's part, as long as max / mean is at most 1.05, or at most 5 % above that
/// without nodes where this is more. hmoe::error where the experts find no room. The replication of hot
/// experts and the two levels are those of DeepSeek's EPLB (2025), which knows experts of one size and equal shares.
[[nodiscard]] inline expert_placement by_cost(const problem& p, double good_enough = 1.01) {
  p.validate();
  require(good_enough >= 1, "placement::by_cost: max / mean cannot be below 1, asked for is ", good_enough);
  detail::packing ranks{{}, p.bytes, p.ranks, p.bytes_per_rank, p.slots_per_rank};
  for (std::size_t e = 0; e < p.experts(); ++e)
    ranks.cost.push_back(p.cost(e));
  std::optional<item_copies> packed = detail::balance(ranks, good_enough);
  if (p.nodes > 1)
    if (auto by_node = detail::balance_nodes(ranks, p.nodes, good_enough)) {
      const double even = std::max(good_enough, detail::even_enough) * ranks.mean();
      const double without = packed ? detail::fullest(bin_costs(*packed, p.ranks)) : 0.0;
      if (!packed ||
          detail::fullest(bin_costs(*by_node, p.ranks)) <= (without <= even ? even : detail::even_enough * without))
        packed = std::move(by_node);
    }
  require(packed.has_value(), "placement::by_cost: ", p.experts(), " experts of ", p.total_bytes(),
          " bytes in all find no room on ", p.ranks, " ranks of ", p.bytes_per_rank, " bytes and ", p.slots_per_rank,
          " experts each");
  std::vector<std::vector<replica>> of(p.experts());
  for (std::size_t e = 0; e < p.experts(); ++e) {
    std::vector<item_copy>& copies = (*packed)[e];
    std::ranges::sort(copies, {}, &item_copy::bin);
    double sum = 0;
    for (const item_copy& c : copies)
      sum += c.cost;
    if (copies.size() > 1 && sum > 0) // a replica that gets no rows would only take memory
      std::erase_if(copies, [&](const item_copy& c) { return c.cost <= 1e-12 * sum; });
    for (const item_copy& c : copies)
      of[e].push_back({c.bin, sum > 0 ? c.cost / sum : 1.0 / static_cast<double>(copies.size())});
  }
  expert_placement result(p.ranks, std::move(of));
  check_memory(result, p);
  return result;
}

} // namespace hmoe::placement

#include <hmoe/core/macros_on.hpp>
