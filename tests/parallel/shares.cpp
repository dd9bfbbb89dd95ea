// SPDX-License-Identifier: MIT
#include <hmoe/parallel/shares.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <random>
#include <vector>

namespace {
namespace placement = hmoe::placement;

/// The least that the fullest of `bins` bins can take: by Hall's theorem the largest mean, over sets of bins, of what
/// has no copy outside of the set.
double least_possible(const placement::item_copies& items, std::size_t bins) {
  double least = 0;
  for (std::size_t set = 1; set < (std::size_t{1} << bins); ++set) {
    double inside = 0, count = 0;
    for (std::size_t b = 0; b < bins; ++b)
      count += (set >> b & 1U) != 0 ? 1 : 0;
    for (const auto& copies : items) {
      const bool all = std::ranges::all_of(copies, [&](const auto& c) { return (set >> c.bin & 1U) != 0; });
      for (const auto& c : copies)
        inside += all ? c.cost : 0;
    }
    least = std::max(least, inside / count);
  }
  return least;
}
} // namespace

TEST_CASE("costs are divided among copies so that the fullest bin takes the least possible") {
  std::mt19937_64 random(71);
  for (int round = 0; round < 200; ++round) {
    const std::size_t bins = 2 + random() % 4;
    placement::item_copies items(1 + random() % 6);
    double total = 0;
    for (auto& copies : items) {
      const double cost = static_cast<double>(1 + random() % 100);
      total += cost;
      for (std::size_t b = 0; b < bins; ++b)
        if (random() % 3 == 0)
          copies.push_back({b, 0});
      if (copies.empty())
        copies.push_back({random() % bins, 0});
      copies[random() % copies.size()].cost = cost;
    }
    const double least = least_possible(items, bins);
    const auto filled = placement::divide(items, bins, 1e-9, 10000);
    CHECK(*std::ranges::max_element(filled) == doctest::Approx(least).epsilon(1e-6));
    const auto again = placement::bin_costs(items, bins);
    double sum = 0;
    for (std::size_t b = 0; b < bins; ++b) {
      CHECK(again[b] == doctest::Approx(filled[b]));
      sum += again[b];
    }
    CHECK(sum == doctest::Approx(total));
  }
}
