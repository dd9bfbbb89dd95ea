// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/parallel/placement.hpp>
#include <hmoe/parallel/shares.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <optional>
#include <queue>
#include <utility>
#include <vector>

/// Copies of items put into bins: how placement::by_cost starts.
namespace hmoe::placement::detail {

/// Items to be put into equal bins, copies of an item into different ones.
struct packing {
  std::vector<double> cost{};
  std::vector<std::size_t> bytes{};
  std::size_t bins = 1, bytes_per_bin = unlimited, slots_per_bin = unlimited;

  [[nodiscard]] std::size_t items() const noexcept { return cost.size(); }
  [[nodiscard]] double mean() const noexcept {
    return std::accumulate(cost.begin(), cost.end(), 0.0) / static_cast<double>(bins);
  }
};

/// What is left in bins.
class room {
public:
  explicit room(const packing& p) : bytes_(p.bins, p.bytes_per_bin), slots_(p.bins, p.slots_per_bin) {}
  [[nodiscard]] bool fits(std::size_t bin, std::size_t bytes) const noexcept {
    return slots_[bin] != 0 && bytes <= bytes_[bin];
  }
  void take(std::size_t bin, std::size_t bytes) noexcept {
    bytes_[bin] -= bytes;
    --slots_[bin];
  }
  /// The part of a bin's memory that is taken.
  [[nodiscard]] double taken(const packing& p, std::size_t bin) const noexcept {
    if (p.bytes_per_bin != unlimited)
      return 1 - static_cast<double>(bytes_[bin]) / static_cast<double>(p.bytes_per_bin);
    return p.slots_per_bin == unlimited ? 0.0
                                        : 1 - static_cast<double>(slots_[bin]) / static_cast<double>(p.slots_per_bin);
  }
  void give(std::size_t bin, std::size_t bytes) noexcept {
    bytes_[bin] += bytes;
    ++slots_[bin];
  }

private:
  std::vector<std::size_t> bytes_, slots_;
};

[[nodiscard]] inline double fullest(const std::vector<double>& filled) {
  return filled.empty() ? 0.0 : *std::ranges::max_element(filled);
}
[[nodiscard]] inline bool is_in(const std::vector<item_copy>& copies, std::size_t bin) {
  return std::ranges::any_of(copies, [&](const item_copy& c) { return c.bin == bin; });
}

/// The number of copies of each item when `extra` more than one of each go, one after the other, to the item whose
/// copies cost most; fewer where all are in every bin or memory ends.
[[nodiscard]] inline std::vector<std::size_t> copy_counts(const packing& p, std::size_t extra) {
  using entry = std::pair<double, std::size_t>; // cost of a copy, and the lower id first
  const auto lower = [](const entry& a, const entry& b) {
    return a.first != b.first ? a.first < b.first : a.second > b.second;
  };
  std::priority_queue<entry, std::vector<entry>, decltype(lower)> by_cost(lower);
  std::vector<std::size_t> counts(p.items(), 1);
  for (std::size_t i = 0; i < p.items(); ++i)
    by_cost.emplace(p.cost[i], i);
  double bytes_left = static_cast<double>(p.bytes_per_bin) * static_cast<double>(p.bins);
  for (const std::size_t b : p.bytes)
    bytes_left -= static_cast<double>(b);
  while (extra != 0 && !by_cost.empty() && by_cost.top().first > 0) {
    const std::size_t i = by_cost.top().second;
    by_cost.pop();
    if (counts[i] == p.bins || static_cast<double>(p.bytes[i]) > bytes_left)
      continue; // no more of this one
    bytes_left -= static_cast<double>(p.bytes[i]);
    ++counts[i];
    --extra;
    by_cost.emplace(p.cost[i] / static_cast<double>(counts[i]), i);
  }
  return counts;
}

/// Puts an item that found no room into a bin in place of a copy of an item that has several, the one whose other
/// copies then cost least.
[[nodiscard]] inline bool displace(const packing& p, item_copies& items, room& left, std::size_t item) {
  std::size_t best = p.items(), bin = 0;
  double least = 0;
  for (std::size_t other = 0; other < p.items(); ++other)
    if (const double cost = p.cost[other] / static_cast<double>(std::max<std::size_t>(2, items[other].size()) - 1);
        items[other].size() > 1 && (best == p.items() || cost < least))
      for (const item_copy& c : items[other]) {
        room without = left;
        without.give(c.bin, p.bytes[other]);
        if (!without.fits(c.bin, p.bytes[item]))
          continue;
        best = other;
        bin = c.bin;
        least = cost;
        break;
      }
  if (best == p.items())
    return false;
  std::erase_if(items[best], [&](const item_copy& c) { return c.bin == bin; });
  left.give(bin, p.bytes[best]);
  items[item].push_back({bin, 0.0});
  left.take(bin, p.bytes[item]);
  return true;
}

/// Copies into bins: the most costly first, each into the emptiest bin that has room and does not have the item; how
/// empty a bin is counts its cost, and `memory` times the part of its memory that is taken. With `by_bytes` the largest
/// items' first copies go first, which finds room where memory is scarce. Nothing where some item finds none at all.
[[nodiscard]] inline std::optional<item_copies> pack(const packing& p, const std::vector<std::size_t>& counts,
                                                     double memory, bool by_bytes = false) {
  struct piece {
    double cost;
    std::size_t item;
    bool first;
  };
  std::vector<piece> pieces;
  for (std::size_t i = 0; i < p.items(); ++i)
    for (std::size_t copy = 0; copy < counts[i]; ++copy)
      pieces.push_back({p.cost[i] / static_cast<double>(counts[i]), i, copy == 0});
  std::ranges::sort(pieces, [&](const piece& a, const piece& b) {
    if (by_bytes && (a.first != b.first || (a.first && p.bytes[a.item] != p.bytes[b.item])))
      return a.first != b.first ? a.first : p.bytes[a.item] > p.bytes[b.item];
    return a.cost != b.cost ? a.cost > b.cost : a.item < b.item;
  });
  item_copies result(p.items());
  std::vector<double> filled(p.bins, 0.0), fullness(p.bins, 0.0);
  room left(p);
  const double mean = p.mean() > 0 ? p.mean() : 1;
  for (const piece& c : pieces) {
    std::size_t best = p.bins;
    for (std::size_t b = 0; b < p.bins; ++b)
      if ((best == p.bins || fullness[b] < fullness[best]) && left.fits(b, p.bytes[c.item]) &&
          !is_in(result[c.item], b))
        best = b;
    if (best == p.bins)
      continue;
    result[c.item].push_back({best, c.cost});
    filled[best] += c.cost;
    left.take(best, p.bytes[c.item]);
    fullness[best] = filled[best] / mean + memory * left.taken(p, best);
  }
  for (std::size_t i = 0; i < p.items(); ++i)
    if (result[i].empty() && !displace(p, result, left, i))
      return std::nullopt;
  for (std::size_t i = 0; i < p.items(); ++i)
    for (item_copy& c : result[i]) // some copies may have found no room
      c.cost = p.cost[i] / static_cast<double>(result[i].size());
  return result;
}

} // namespace hmoe::placement::detail

#include <hmoe/core/macros_on.hpp>
