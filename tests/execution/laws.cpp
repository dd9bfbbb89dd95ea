// SPDX-License-Identifier: MIT
// The laws on every executor.
#include <hmoe/core/error.hpp>
#include <hmoe/execution/executor.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/execution/tbb.hpp>
#include <hmoe/testing/executor_laws.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <string>
#include <vector>

namespace executors = hmoe::executors;

namespace {
// The library is not compiled with the thread sanitizer, which so cannot see how it waits and finds races that are
// none.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr bool tbb_is_unseen = true;
#else
constexpr bool tbb_is_unseen = false;
#endif
#else
constexpr bool tbb_is_unseen = false;
#endif

/// Executor(n) has n threads of its own.
template <hmoe::executor Executor> void check_threaded(const std::string& name) {
  for (const std::size_t threads : {1U, 2U, 3U, 8U}) {
    const Executor executor(threads);
    CHECK(executor.concurrency() == threads);
    // A single thread works as the serial executor does.
    CHECK(hmoe::testing::check_executor(executor, {.finishes_all = threads > 1, .nests = true}).text() == "");
  }
  SUBCASE("tasks may run tasks of another executor") {
    const Executor outer(2), inner(3);
    std::vector<std::atomic<int>> runs(12);
    std::atomic<int> out_of_range = 0;
    outer.for_each(4, [&](std::size_t i, std::size_t) {
      inner.for_each(3, [&](std::size_t j, std::size_t worker) {
        ++runs[i * 3 + j];
        out_of_range += worker < inner.concurrency() ? 0 : 1;
      });
    });
    for (const auto& run : runs)
      CHECK(run == 1);
    CHECK(out_of_range == 0);
  }
  SUBCASE("the number of threads has limits") {
    const std::string message = "hmoe: executors::" + name + " with 0 threads: 1 to 4096 are possible";
    CHECK_THROWS_WITH_AS(Executor(0), message.c_str(), hmoe::error);
    CHECK_THROWS_AS(Executor(4097), hmoe::error);
  }
}
} // namespace

TEST_CASE("executors::serial") {
  CHECK(hmoe::testing::check_executor(executors::serial{}, {.finishes_all = false, .nests = true}).text() == "");
}

TEST_CASE("executors::openmp") { check_threaded<executors::openmp>("openmp"); }

TEST_CASE("executors::tbb" * doctest::skip(tbb_is_unseen)) { check_threaded<executors::tbb>("tbb"); }
