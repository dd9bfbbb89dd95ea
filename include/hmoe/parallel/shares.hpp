// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

/// How the cost of items that have copies in several bins is best divided among the copies.
namespace hmoe::placement {

/// A copy of an item in a bin, and the part of the item's cost that it takes.
struct item_copy {
  std::size_t bin = 0;
  double cost = 0;
};
/// The copies of each item.
using item_copies = std::vector<std::vector<item_copy>>;

/// What each bin takes.
[[nodiscard]] inline std::vector<double> bin_costs(const item_copies& items, std::size_t bins) {
  std::vector<double> result(bins, 0.0);
  for (const auto& copies : items)
    for (const item_copy& c : copies)
      result[c.bin] += c.cost;
  return result;
}

/// Divides the cost of each item among its copies anew so that the sum of the squares of the bins' costs is least, and
/// with it the cost of the fullest bin. Item by item, its cost is poured into its bins like water, over and over, until
/// nothing moves more than `precision`, or `most_rounds` times. Returns the bins' costs.
inline std::vector<double> divide(item_copies& items, std::size_t bins, double precision, std::size_t most_rounds) {
  std::vector<double> filled = bin_costs(items, bins);
  for (std::size_t round = 0; round < most_rounds; ++round) {
    double moved = 0;
    for (auto& copies : items) {
      if (copies.size() < 2)
        continue;
      double cost = 0;
      for (const item_copy& c : copies) {
        filled[c.bin] -= c.cost;
        cost += c.cost;
      }
      std::ranges::sort(copies, [&](const item_copy& a, const item_copy& b) {
        return filled[a.bin] != filled[b.bin] ? filled[a.bin] < filled[b.bin] : a.bin < b.bin;
      });
      // The level that the lowest bins reach together.
      double sum = cost, level = 0;
      for (std::size_t i = 0; i < copies.size(); ++i) {
        sum += filled[copies[i].bin];
        level = sum / static_cast<double>(i + 1);
        if (i + 1 < copies.size() && level <= filled[copies[i + 1].bin])
          break;
      }
      for (item_copy& c : copies) {
        const double part = std::max(0.0, level - filled[c.bin]);
        moved = std::max(moved, std::abs(part - c.cost));
        c.cost = part;
        filled[c.bin] += part;
      }
    }
    if (moved <= precision)
      break;
  }
  return filled;
}

} // namespace hmoe::placement

#include <hmoe/core/macros_on.hpp>
