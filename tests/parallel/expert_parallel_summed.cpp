// SPDX-License-Identifier: MIT
#include <hmoe/parallel/expert_parallel_summed.hpp>
#include <hmoe/parallel/single.hpp>
#include <hmoe/testing/dispatch_laws.hpp>

#include "parallel/on_ranks.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace {
using hmoe::dispatch::expert_parallel_summed;
using results = support::part_result<double>;

double largest_difference_of(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = a.size() == b.size() ? 0 : 1e300;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}
bool same_results(const results& a, const results& b) {
  return support::same_bits(a.y, b.y) && support::same_bits(a.inferred, b.y) && support::same_bits(a.dx, b.dx) &&
         support::same_bits(a.d_weights, b.d_weights);
}
} // namespace

TEST_CASE("summed at the experts, on one rank it keeps the laws of dispatch") {
  const hmoe::communicators::single self;
  CHECK(hmoe::testing::check_dispatch(expert_parallel_summed{self, hmoe::placement::contiguous(5, 1)}).text() == "");
}

TEST_CASE("summed at the experts: one process to rounding, and the same bits for the same placement") {
  constexpr std::size_t whole = 61;
  const auto experts = support::make_unequal_experts<double>();
  for (const bool on_input : {false, true}) {
    CAPTURE(on_input);
    const results expected = support::run_part<double>(hmoe::context{hmoe::backends::reference{}},
                                                       hmoe::dispatch::sorted<>{}, experts, whole, 0, whole, on_input);
    for (const std::size_t ranks : {1U, 2U, 3U, 8U}) {
      CAPTURE(ranks);
      const auto run = [&](const hmoe::expert_placement& placed, const std::vector<std::size_t>& begin) {
        return support::run_on_threads(begin, on_input,
                                       [&](const auto& self) { return expert_parallel_summed{self, placed}; });
      };
      const auto check = [&](const results& got) {
        CHECK(largest_difference_of(got.y, expected.y) < 1e-13);
        CHECK(support::same_bits(got.inferred, got.y));
        CHECK(largest_difference_of(got.dx, expected.dx) < 1e-13);
        CHECK(support::same_bits(got.d_weights, expected.d_weights)); // no sum over experts
        for (std::size_t i = 0; i < got.gradients.size(); ++i)
          CHECK(largest_difference_of(got.gradients[i], expected.gradients[i]) < 1e-13);
      };
      const auto placed = hmoe::placement::round_robin(support::parallel_experts, ranks);
      const results got = run(placed, support::parts_of(whole, ranks));
      check(got);
      // Chunks of tokens change nothing.
      const results in_chunks =
          support::run_on_threads(support::parts_of(whole, ranks), on_input, [&](const auto& self) {
            return expert_parallel_summed{self, placed, hmoe::dispatch::sorted<>{}, hmoe::dispatch::overlap{3}};
          });
      CHECK(same_results(in_chunks, got));
      CHECK(in_chunks.gradients == got.gradients);
      check(run(support::with_replicas(ranks), support::parts_of(whole, ranks)));
      // Where each rank has one expert, the order of ranks is that of experts.
      if (ranks == 1 || (on_input && ranks > support::parallel_experts))
        CHECK(same_results(got, expected));
      // Another rank has the tokens: all on the last one.
      std::vector<std::size_t> on_last(ranks + 1, 0);
      on_last[ranks] = whole;
      CHECK(same_results(run(placed, on_last), got));
    }
  }
}
