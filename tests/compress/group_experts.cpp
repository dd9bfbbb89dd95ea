// SPDX-License-Identifier: MIT
#include <hmoe/compress/group_experts.hpp>

#include "compress/calibrated_layer.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace compress = hmoe::compress;
using compress::expert_groups;
using support::d;

TEST_CASE("experts are grouped by average linkage of their mean outputs, within a bank") {
  bool seen_three = false;
  for (std::uint64_t seed = 3; seed < 40; ++seed) {
    const auto layer = support::make_calibrated_layer(seed);
    const support::calibration_run run(layer);
    const auto distance = [&](std::size_t a, std::size_t b) {
      double squared = 0;
      for (std::size_t i = 0; i < d; ++i) {
        const auto& ea = run.sums.expert(a);
        const auto& eb = run.sums.expert(b);
        squared +=
            std::pow(ea.output[i] / static_cast<double>(ea.rows) - eb.output[i] / static_cast<double>(eb.rows), 2);
      }
      return std::sqrt(squared);
    };
    // Of three experts of the first bank, which pair comes together first, and whether {1, 4} comes before that.
    const double d02 = distance(0, 2), d03 = distance(0, 3), d23 = distance(2, 3), d14 = distance(1, 4);
    const std::vector<std::size_t> pair = d02 < d03 && d02 < d23 ? std::vector<std::size_t>{0, 2}
                                          : d03 < d23            ? std::vector<std::size_t>{0, 3}
                                                                 : std::vector<std::size_t>{2, 3};
    const double nearest = std::min({d02, d03, d23}), to_third = (d02 + d03 + d23 - nearest) / 2;
    CHECK(compress::group_by_output(layer, run.sums, 5).empty());
    CHECK(compress::group_by_output(layer, run.sums, 4) ==
          (d14 < nearest ? expert_groups{{1, 4}} : expert_groups{pair}));
    const bool three = to_third < d14;
    seen_three = seen_three || three;
    expert_groups expected = three ? expert_groups{{0, 2, 3}} : expert_groups{pair, {1, 4}};
    if (!three && pair[0] == 2)
      expected = {{1, 4}, pair};
    CHECK(compress::group_by_output(layer, run.sums, 3) == expected);
    CHECK(compress::group_by_output(layer, run.sums, 2) == expert_groups{{0, 2, 3}, {1, 4}});
    CHECK(support::error_of([&] { (void)compress::group_by_output(layer, run.sums, 1); }) ==
          "hmoe: 1 experts shall be left, but the 2 clusters that there are cannot come together: experts of different "
          "banks and experts without neurons stay apart");
  }
  CHECK(seen_three);
}
