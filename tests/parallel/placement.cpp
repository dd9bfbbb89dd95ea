// SPDX-License-Identifier: MIT
#include <hmoe/parallel/placement.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

namespace {
namespace placement = hmoe::placement;
using support::error_of;

std::vector<std::size_t> ranks_of(const hmoe::expert_placement& placed) {
  std::vector<std::size_t> ranks;
  for (std::size_t e = 0; e < placed.experts(); ++e) {
    CHECK(placed.replicas(e).size() == 1);
    ranks.push_back(placed.replicas(e)[0].rank);
  }
  return ranks;
}
/// Loads 1, 2, 3, 4 of experts with 10, 10, 10, 20 FLOPs per row and 5, 6, 7, 8 bytes.
placement::problem four_experts(std::size_t ranks) {
  return {.loads = {1, 2, 3, 4}, .flops_per_row = {10, 10, 10, 20}, .bytes = {5, 6, 7, 8}, .ranks = ranks};
}
} // namespace

TEST_CASE("contiguous and round_robin") {
  using list = std::vector<std::size_t>;
  CHECK(ranks_of(placement::contiguous(7, 3)) == list{0, 0, 0, 1, 1, 2, 2});
  CHECK(ranks_of(placement::contiguous(2, 3)) == list{0, 1});
  CHECK(ranks_of(placement::round_robin(7, 3)) == list{0, 1, 2, 0, 1, 2, 0});
  CHECK(placement::contiguous(0, 2).experts() == 0);
  CHECK(placement::contiguous(four_experts(2)) == placement::contiguous(4, 2));
  CHECK(placement::round_robin(four_experts(2)) == placement::round_robin(4, 2));
}

TEST_CASE("FLOPs of ranks and their imbalance") {
  const placement::problem p = four_experts(2);
  CHECK(placement::flops_by_rank(placement::contiguous(p), p) == std::vector<double>{30, 110});
  CHECK(placement::imbalance(placement::contiguous(p), p) == doctest::Approx(110 / 70.0));
  const hmoe::expert_placement shared(2, {{{0}}, {{0}}, {{0, 0.5}, {1, 0.5}}, {{0, 0.25}, {1, 0.75}}});
  CHECK(placement::flops_by_rank(shared, p) == std::vector<double>{10 + 20 + 15 + 20, 15 + 60});
  CHECK(shared.slots() == 6);
  CHECK(shared.has(1, 2));
  CHECK_FALSE(shared.has(1, 0));
  placement::problem idle = p;
  idle.loads = {0, 0, 0, 0};
  CHECK(placement::imbalance(shared, idle) == 1);
}

TEST_CASE("rows of an expert are divided by its shares, in each source and over sources") {
  const hmoe::expert_placement placed(4, {{{0, 0.5}, {1, 0.125}, {3, 0.375}}, {{2}}, {{0, 0.0}, {1, 1.0}}});
  CHECK(placed.rank_of(1, 0, 5, 6) == 2);
  for (std::size_t i = 0; i < 6; ++i)
    CHECK(placed.rank_of(2, i, i, 6) == 1); // never where the share is 0
  for (const std::size_t source : {0U, 1U, 5U}) {
    std::vector<std::size_t> rows(4);
    std::size_t before = 0;
    for (std::size_t i = 0; i < 800; ++i) {
      const std::size_t r = placed.rank_of(0, source, i, 800);
      CHECK(r >= before); // neighbouring rows stay together
      before = r;
      ++rows[r];
    }
    CHECK(rows[0] >= 399);
    CHECK(rows[0] <= 401);
    CHECK(rows[1] >= 99);
    CHECK(rows[1] <= 101);
    CHECK(rows[2] == 0);
  }
  std::vector<std::size_t> rows(4); // of sources with one row each
  for (std::size_t source = 0; source < 800; ++source)
    ++rows[placed.rank_of(0, source, 0, 1)];
  CHECK(rows[0] >= 390);
  CHECK(rows[0] <= 410);
  CHECK(rows[1] >= 90);
  CHECK(rows[1] <= 110);
}

TEST_CASE("a layer's cost becomes a problem") {
  const std::vector<hmoe::expert_cost> experts{{8, 100, 400, 48}, {16, 200, 800, 96}};
  const hmoe::layer_cost cost{.experts = hmoe::expert_costs(experts)};
  const placement::problem p = placement::of_layer(cost, {3, 1}, 2);
  CHECK(p.cost(0) == 144);
  CHECK(p.cost(1) == 96);
  CHECK(p.total_bytes() == 1200);
  CHECK(error_of([&] { return placement::of_layer(cost, {3}, 2); }) ==
        "hmoe: placement: 1 loads, 2 numbers of FLOPs and 2 of bytes: give one of each per expert");
}

TEST_CASE("placements that cannot be are refused with the numbers") {
  using hmoe::expert_placement;
  const auto error = [](std::size_t ranks, std::vector<std::vector<hmoe::replica>> of) {
    return error_of([&] { expert_placement refused(ranks, of); });
  };
  CHECK(error(2, {{{0}}, {}}) == "hmoe: expert_placement: expert 1 is on no rank");
  CHECK(error(2, {{{2}}}) == "hmoe: expert_placement: expert 0 is on rank 2, there are 2");
  CHECK(error(2, {{{1, 0.5}, {0, 0.5}}}) == "hmoe: expert_placement: the ranks of expert 0 do not ascend: 1 before 0");
  CHECK(error(2, {{{0, 0.5}, {1, 0.25}}}) == "hmoe: expert_placement: the shares of expert 0 add up to 0.75, not to 1");
  CHECK(error(2, {{{0, 1.5}, {1, -0.5}}}) == "hmoe: expert_placement: rank 1 has the share -0.5 of expert 0");
  CHECK(error(0, {}) == "hmoe: expert_placement on 0 ranks: give at least 1");
  placement::problem p = four_experts(2);
  p.bytes_per_rank = 14;
  CHECK(error_of([&] { return placement::contiguous(p); }) ==
        "hmoe: placement: rank 1 would have 15 bytes of experts, of 14 possible");
  CHECK(error_of([&] { return placement::round_robin(p); }) == "no error");
  p.slots_per_rank = 1;
  CHECK(error_of([&] { return placement::round_robin(p); }) ==
        "hmoe: placement: rank 0 would have 2 experts, of 1 possible");
  p.nodes = 3;
  CHECK(error_of([&] { p.validate(); }) == "hmoe: placement: 2 ranks on 3 nodes: give a multiple of the nodes, and at "
                                           "least 1");
  p.nodes = 1;
  p.loads[2] = -1;
  CHECK(error_of([&] { p.validate(); }) == "hmoe: placement: expert 2 has the load -1 and 10 FLOPs per row");
}

TEST_CASE("widths and costs of ranks with their own experts only") {
  const std::vector<std::size_t> widths{3, 5, 7};
  const auto problem = hmoe::placement::of_widths(widths, 4, 3, 8, {1, 2, 1}, 2);
  CHECK(problem.flops_per_row[1] == 2 * 3 * 4 * 5);
  CHECK(problem.bytes[2] == 3 * 4 * 7 * 8);
  const hmoe::expert_placement placed(2, {{{0, 1.0}}, {{0, 0.5}, {1, 0.5}}, {{1, 1.0}}});
  CHECK(hmoe::placement::own_widths(placed, 0, widths) == std::vector<std::size_t>{3, 5, 0});
  CHECK(hmoe::placement::own_widths(placed, 1, widths) == std::vector<std::size_t>{0, 5, 7});
  CHECK(support::error_of([&] { static_cast<void>(hmoe::placement::own_widths(placed, 1, {1, 2})); }) ==
        "hmoe: own_widths: 2 widths for a placement of 3 experts");
}
