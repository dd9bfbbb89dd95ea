// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/parallel/packing.hpp>
#include <hmoe/parallel/shares.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>
#include <vector>

/// A packing made more even step by step: how placement::by_cost goes on.
namespace hmoe::placement::detail {

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

  /// Whether one of attempt(item, from, to) helps: each copy in a bin, the fullest first, and each bin that is less
  /// full, the emptiest first.
  template <class Attempt> bool any_helps(const Attempt& attempt) {
    const auto order = order_of_bins();
    for (const std::size_t from : order)
      for (std::size_t item = 0; item < items_.size(); ++item) {
        if (!is_in(items_[item], from))
          continue;
        for (std::size_t b = order.size(); b-- > 0 && filled_[order[b]] < filled_[from];)
          if (attempt(item, from, order[b]))
            return true;
      }
    return false;
  }
  bool one_change() {
    return any_helps([&](std::size_t item, std::size_t from, std::size_t to) {
      for (const std::size_t source : {none, from})
        if (const change c{item, source, to}; evaluations_ != 0 && possible(c)) {
          item_copies changed = items_;
          apply(changed, c);
          if (take_if_better(std::move(changed)))
            return true;
        }
      return false;
    });
  }
  /// Exchanges of two copies, and a copy that makes room for another one.
  bool two_changes() {
    return any_helps([&](std::size_t item, std::size_t from, std::size_t to) {
      if (is_in(items_[item], to))
        return false;
      for (std::size_t other = 0; other < items_.size(); ++other)
        if (other != item && is_in(items_[other], to))
          for (const bool move : {true, false})
            if (evaluations_ != 0 && exchange(item, from, to, other, move))
              return true;
      return false;
    });
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

} // namespace hmoe::placement::detail

#include <hmoe/core/macros_on.hpp>
