// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/parallel/placement.hpp>
#include <hmoe/parallel/shares.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <optional>
#include <queue>
#include <utility>
#include <vector>

namespace hmoe::placement {

namespace detail {

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

/// Moves, exchanges, adds and drops copies as long as the fullest bin gets less full, or `evaluations` are used up.
class improvement {
public:
  improvement(const packing& p, item_copies start, std::size_t evaluations)
      : p_(p), items_(std::move(start)), left_(p), evaluations_(evaluations), mean_(p.mean()) {
    for (std::size_t i = 0; i < items_.size(); ++i)
      for (const item_copy& c : items_[i])
        left_.take(c.bin, p_.bytes[i]);
    filled_ = divide(items_, p_.bins, mean_ * 1e-7, 1000);
  }
  [[nodiscard]] item_copies run(double good_enough) {
    while (fullest(filled_) > good_enough * mean_ && evaluations_ != 0 && (one_change() || two_changes())) {
    }
    return std::move(items_);
  }

private:
  /// To a bin, from a bin or from none (another copy).
  struct change {
    std::size_t item, from, to;
  };

  [[nodiscard]] bool possible(const change& c) const {
    return !is_in(items_[c.item], c.to) && left_.fits(c.to, p_.bytes[c.item]);
  }
  void apply(item_copies& items, const change& c) const {
    std::vector<item_copy>& copies = items[c.item];
    if (c.from == none) {
      copies.push_back({c.to, 0.0});
      return;
    }
    for (item_copy& own : copies)
      if (own.bin == c.from)
        own.bin = c.to;
  }
  /// Keeps the items if their fullest bin is less full.
  bool take_if_better(item_copies changed) {
    --evaluations_;
    std::vector<double> filled = divide(changed, p_.bins, mean_ * 1e-7, 1000);
    if (!better(filled))
      return false;
    items_ = std::move(changed);
    filled_ = std::move(filled);
    left_ = room(p_);
    for (std::size_t i = 0; i < items_.size(); ++i)
      for (const item_copy& c : items_[i])
        left_.take(c.bin, p_.bytes[i]);
    return true;
  }
  /// Less full in the fullest bin, or as full there and more even.
  [[nodiscard]] bool better(const std::vector<double>& filled) const {
    const double now = fullest(filled_), then = fullest(filled), least = 1e-6 * mean_;
    if (then < now - least)
      return true;
    return then <= now + 1e-9 * mean_ && squares(filled) < squares(filled_) - least * mean_;
  }
  [[nodiscard]] static double squares(const std::vector<double>& filled) {
    return std::inner_product(filled.begin(), filled.end(), filled.begin(), 0.0);
  }
  /// Bins, the fullest first.
  [[nodiscard]] std::vector<std::size_t> order_of_bins() const {
    std::vector<std::size_t> order(p_.bins);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::sort(order, [&](std::size_t a, std::size_t b) {
      return filled_[a] != filled_[b] ? filled_[a] > filled_[b] : a < b;
    });
    return order;
  }

  bool one_change() {
    const auto order = order_of_bins();
    for (const std::size_t from : order)
      for (std::size_t item = 0; item < items_.size(); ++item) {
        if (!is_in(items_[item], from))
          continue;
        for (std::size_t b = order.size(); b-- > 0;) {
          const std::size_t to = order[b];
          if (filled_[to] >= filled_[from])
            break;
          for (const std::size_t source : {none, from}) {
            if (evaluations_ == 0)
              return false;
            if (const change c{item, source, to}; possible(c)) {
              item_copies changed = items_;
              apply(changed, c);
              if (take_if_better(std::move(changed)))
                return true;
            }
          }
        }
      }
    return false;
  }
  /// Exchanges of two copies, and a copy that makes room for another one.
  bool two_changes() {
    const auto order = order_of_bins();
    for (const std::size_t from : order)
      for (std::size_t item = 0; item < items_.size(); ++item) {
        if (!is_in(items_[item], from))
          continue;
        for (std::size_t b = order.size(); b-- > 0;) {
          const std::size_t to = order[b];
          if (filled_[to] >= filled_[from])
            break;
          if (is_in(items_[item], to))
            continue;
          for (std::size_t other = 0; other < items_.size(); ++other) {
            if (other == item || !is_in(items_[other], to))
              continue;
            for (const bool move : {true, false})
              if (evaluations_ == 0)
                return false;
              else if (exchange(item, from, to, other, move))
                return true;
          }
        }
      }
    return false;
  }
  /// `item` from one bin to the other (or also there, unless `move`), and `other` the other way, or out of it where it
  /// has more copies.
  bool exchange(std::size_t item, std::size_t from, std::size_t to, std::size_t other, bool move) {
    const std::size_t item_bytes = p_.bytes[item], other_bytes = p_.bytes[other];
    room left = left_;
    left.give(to, other_bytes);
    if (!left.fits(to, item_bytes))
      return false;
    left.take(to, item_bytes);
    if (move)
      left.give(from, item_bytes);
    item_copies changed = items_;
    apply(changed, {item, move ? from : none, to});
    if (!is_in(items_[other], from) && left.fits(from, other_bytes)) {
      item_copies both = changed;
      apply(both, {other, to, from});
      if (take_if_better(std::move(both)))
        return true;
    }
    if (items_[other].size() < 2 || evaluations_ == 0)
      return false;
    std::vector<item_copy>& copies = changed[other];
    const auto gone = std::ranges::find_if(copies, [&](const item_copy& c) { return c.bin == to; });
    const double cost = gone->cost;
    copies.erase(gone);
    copies[0].cost += cost;
    return take_if_better(std::move(changed));
  }

  static constexpr std::size_t none = static_cast<std::size_t>(-1);

  const packing& p_;
  item_copies items_;
  room left_;
  std::vector<double> filled_;
  std::size_t evaluations_;
  double mean_;
};

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
    std::size_t copies = 0;
    for (const auto& own : *best)
      copies += own.size();
    best = improvement(p, *std::move(best), std::max<std::size_t>(20, 50000 / (copies + 1))).run(good_enough);
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
  return best;
}

} // namespace detail

/// Places experts so that the FLOPs of the busiest rank are least, as far as memory goes: experts that cost most get
/// further replicas, the replicas are packed, the most costly first onto the least busy rank, each expert's rows are
/// divided among its replicas so that the ranks' loads are as even as the packing allows, and what is left uneven is
/// improved by moving and exchanging replicas. Stops when max / mean is at most `good_enough`, with as few replicas as
/// that takes. With several nodes experts are first divided among the nodes, so that replicas of an expert are on one
/// node unless it costs more than a node's part; where that makes the busiest rank more than 5 % busier, nodes do not
/// count. hmoe::error where the experts find no room. The replication of hot
/// experts and the two levels are those of DeepSeek's EPLB (2025), which knows experts of one size and equal shares.
[[nodiscard]] inline expert_placement by_cost(const problem& p, double good_enough = 1.01) {
  p.validate();
  require(good_enough >= 1, "placement::by_cost: max / mean cannot be below 1, asked for is ", good_enough);
  detail::packing ranks{{}, p.bytes, p.ranks, p.bytes_per_rank, p.slots_per_rank};
  for (std::size_t e = 0; e < p.experts(); ++e)
    ranks.cost.push_back(p.cost(e));
  std::optional<item_copies> packed = detail::balance(ranks, good_enough);
  if (p.nodes > 1)
    if (auto by_node = detail::balance_nodes(ranks, p.nodes, good_enough))
      if (!packed || detail::fullest(bin_costs(*by_node, p.ranks)) <=
                         1.05 * std::max(detail::fullest(bin_costs(*packed, p.ranks)), good_enough * ranks.mean()))
        packed = std::move(by_node);
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
