// SPDX-License-Identifier: MIT
#include <hmoe/testing/executor_laws.hpp>
#include <hmoe/testing/reversed_threads.hpp>

#include <doctest/doctest.h>

#include <vector>

using hmoe::testing::reversed_threads;

TEST_CASE("reversed threads are an executor") {
  for (const std::size_t threads : {1U, 2U, 3U})
    CHECK(hmoe::testing::check_executor(reversed_threads(threads), {.nests = true}).text() == "");
}

TEST_CASE("a thread runs its tasks last first") {
  std::vector<std::size_t> order;
  reversed_threads(1).for_each(4, [&](std::size_t task, std::size_t) { order.push_back(task); });
  CHECK(order == std::vector<std::size_t>{3, 2, 1, 0});
}
