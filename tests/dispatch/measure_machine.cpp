// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/measure_machine.hpp>

#include "dispatch/strategies.hpp"

#include <doctest/doctest.h>

#include <cmath>

TEST_CASE("limits of a machine are found: all of them are positive numbers") {
  const auto layer = support::make_layer<float>(hmoe::dispatch::sorted{}, hmoe::routing::top_k_router<float>(10, 6, 2));
  const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::openmp{2}};
  const hmoe::dispatch::machine_limits found = hmoe::dispatch::measure_machine(ctx, layer.experts(), 0.01);
  for (const double value : {found.flops, found.first_read, found.next_read, found.read_by_token, found.scattered_read,
                             found.row_copy, found.wait_seconds, found.task_seconds, found.plan_seconds}) {
    CHECK(std::isfinite(value));
    CHECK(value > 0);
  }
  CHECK(found.next_read >= found.first_read);
  CHECK(found.not_hidden >= 0);
  CHECK(found.not_hidden <= 1);
  CHECK(found.loop_seconds >= 0);
  CHECK(std::isfinite(found.scattered_row));
  CHECK(found.scattered_row != 0);
  CHECK(found.threads == 2);
}
