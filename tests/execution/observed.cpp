// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/observed.hpp>
#include <hmoe/testing/probe_laws.hpp>

#include <doctest/doctest.h>

#include <concepts>
#include <type_traits>
#include <vector>

using hmoe::probes::direction;
using hmoe::probes::event;
using hmoe::probes::stage;

TEST_CASE("without a probe the same objects are used, not others like them") {
  const hmoe::context ctx{hmoe::backends::reference{}};
  static_assert(std::same_as<decltype(hmoe::probes::placed(ctx, hmoe::probes::part_of{})), decltype((ctx))>);
  CHECK(&hmoe::probes::placed(ctx, hmoe::probes::part_of{}) == &ctx);
  CHECK(&hmoe::probes::math_for(ctx, ctx.backend(), 3, 1) == &ctx.backend());
}

TEST_CASE("events are renumbered, relabelled and completed on their way to the probe") {
  const hmoe::context ctx{hmoe::backends::reference{}, hmoe::testing::reversed_threads(3),
                          hmoe::testing::recording_probe{}};
  const std::vector<std::size_t> ids{7, 2, 9};
  const auto bank =
      hmoe::probes::placed(ctx, hmoe::probes::renumbered{hmoe::vector_view<const std::size_t>(ids.data(), ids.size())});
  static_assert(hmoe::execution_context<std::remove_const_t<decltype(bank)>>);
  CHECK(&bank.backend() == &ctx.backend());
  CHECK(&bank.executor() == &ctx.executor());
  CHECK(&bank.workspace() == &ctx.workspace());
  const auto tell = [](const auto& to, const event& e) {
    hmoe::probes::watch<std::remove_cvref_t<decltype(to)>> watched;
    watched.begin(to, e);
  };
  const auto& calls = ctx.probe().calls();
  tell(bank, {stage::down, direction::forward, 4, 0, 8, 1});
  CHECK(calls[0].back().event.expert == 2);
  tell(bank, {stage::combine, direction::forward, 4});
  CHECK(calls[0].back().event.expert == hmoe::probes::no_expert);

  // One inside of the other: the outer one has the last word.
  const auto route = hmoe::probes::placed(bank, hmoe::probes::part_of{stage::route, direction::backward});
  tell(route, {stage::other, direction::forward, 4, 5, 6, hmoe::probes::no_expert, 2});
  CHECK(calls[2].back().event.stage == stage::route);
  CHECK(calls[2].back().event.direction == direction::backward);
  CHECK(calls[2].back().event.rows == 0);
  CHECK(calls[2].back().event.flops == 0);

  const auto math = hmoe::probes::math_for(ctx, ctx.backend(), 5, 1);
  tell(math, {stage::gate_up, direction::forward, 3});
  CHECK(calls[1].back().event.expert == 5);
  CHECK(calls[1].back().event.rows == 3);
}
