// SPDX-License-Identifier: MIT
#include <hmoe/layer/cost.hpp>
#include <hmoe/statistics/activation.hpp>
#include <hmoe/statistics/expert_load.hpp>

#include "statistics/assignments.hpp"

#include <doctest/doctest.h>

#include <numeric>

using namespace hmoe::statistics;

TEST_CASE("what each token activates") {
  const auto assigned = support::make_assignment({{0, 2}, {}, {1}, {0, 1, 2}});
  const std::vector<std::size_t> widths{4, 6, 8};
  CHECK(activated_per_token(assigned, widths) == std::vector<double>{12, 0, 6, 18});
  CHECK(experts_per_token(assigned) == std::vector<std::size_t>{2, 0, 1, 3});
  CHECK(activated_per_token(support::make_assignment({}), widths).empty());
  CHECK_THROWS_WITH_AS((void)activated_per_token(assigned, std::vector<std::size_t>{4, 6}),
                       doctest::Contains("token 0 has expert 2"), hmoe::error);
}

TEST_CASE("its mean is what the layer's cost and the load say") {
  const auto assigned = support::make_assignment({{0, 2}, {}, {1}, {0, 1, 2}});
  const std::vector<std::size_t> widths{4, 6, 8};
  std::vector<hmoe::expert_cost> experts;
  for (const std::size_t h : widths)
    experts.push_back({h, 3 * h, 12 * h, 6.0 * static_cast<double>(h)});
  const hmoe::layer_cost cost{.experts = hmoe::expert_costs(experts)};
  expert_load load(3);
  load.add(assigned);
  const std::vector<double> each = activated_per_token(assigned, widths);
  const double mean = std::accumulate(each.begin(), each.end(), 0.0) / 4;
  CHECK(cost.activated(assigned).width == mean);
  CHECK(load.per_token(widths) == mean);
  CHECK(load.experts_per_token() == cost.activated(assigned).experts);
}
