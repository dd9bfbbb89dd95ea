// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/parallel/expert_parallel.hpp>
#include <hmoe/parallel/threads.hpp>

#include "parallel/on_ranks.hpp"

#include <doctest/doctest.h>

#include <vector>

TEST_CASE("on ranks with backends::simd and scattered results have the bits of one process") {
  constexpr std::size_t whole = 61;
  const auto experts = support::make_unequal_experts<float>();
  const auto expected = support::run_part<float>(hmoe::context{hmoe::backends::simd{}}, hmoe::dispatch::scattered{},
                                                 experts, whole, 0, whole, false);
  for (const std::size_t ranks : {1U, 2U, 3U, 8U}) {
    CAPTURE(ranks);
    const auto begin = support::parts_of(whole, ranks);
    std::vector<support::part_result<float>> parts(ranks);
    hmoe::communicators::threads(ranks).run([&](const auto& self) {
      const std::size_t r = self.rank();
      const hmoe::dispatch::expert_parallel strategy{self, support::with_replicas(ranks), hmoe::dispatch::scattered{}};
      parts[r] = support::run_part<float>(hmoe::context{hmoe::backends::simd{}}, strategy, experts, whole, begin[r],
                                          begin[r + 1], false);
    });
    const auto got = support::joined(parts);
    CHECK(support::same_bits(got.y, expected.y));
    CHECK(support::same_bits(got.inferred, expected.y));
    CHECK(support::same_bits(got.dx, expected.dx));
    CHECK(support::same_bits(got.d_weights, expected.d_weights));
  }
}
