// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/openmp.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <vector>

TEST_CASE("each row is visited once, for any count and any number of threads") {
  for (const std::size_t count : {0U, 1U, 63U, 64U, 65U, 1000U})
    for (const std::size_t threads : {1U, 3U}) {
      std::vector<std::atomic<int>> visits(count);
      hmoe::for_each_row(hmoe::context{hmoe::backends::reference{}, hmoe::executors::openmp{threads}}, count,
                         [&](std::size_t r) { ++visits[r]; });
      for (const auto& v : visits)
        CHECK(v == 1);
    }
}
