// SPDX-License-Identifier: MIT
#include <hmoe/execution/openmp.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

using hmoe::executors::openmp;

TEST_CASE("each task runs once, under a worker number that nobody else has at that time") {
  static_assert(hmoe::executor<openmp>);
  for (const std::size_t threads : {1U, 2U, 3U, 8U}) {
    const openmp executor(threads);
    CHECK(executor.concurrency() == threads);
    for (const std::size_t count : {0U, 1U, 2U, 7U, 500U}) {
      std::vector<std::atomic<int>> runs(count), busy(threads);
      std::atomic<int> out_of_range = 0, overlapping = 0;
      executor.for_each(count, [&](std::size_t task, std::size_t worker) {
        if (task >= count || worker >= threads) {
          ++out_of_range;
          return;
        }
        if (busy[worker].exchange(1) != 0)
          ++overlapping;
        ++runs[task];
        volatile double work = 1;
        for (int i = 0; i < 200; ++i)
          work = work * 1.0001;
        busy[worker] = 0;
      });
      CHECK(out_of_range == 0);
      CHECK(overlapping == 0);
      for (const auto& run : runs)
        CHECK(run == 1);
    }
  }
}

TEST_CASE("of several failures, that of the lowest task reaches the caller, after all tasks have ended") {
  for (const std::size_t threads : {2U, 4U})
    for (int round = 0; round < 20; ++round) {
      std::atomic<int> ended = 0;
      const auto run = [&] {
        openmp(threads).for_each(64, [&](std::size_t task, std::size_t) {
          ++ended;
          if (task >= 5 && task % 2 == 1)
            throw std::out_of_range(std::to_string(task));
        });
      };
      CHECK_THROWS_WITH_AS(run(), "5", std::out_of_range);
      CHECK(ended == 64);
    }
}

TEST_CASE("an executor works again after a failure") {
  const openmp executor(2);
  CHECK_THROWS_AS(executor.for_each(8, [](std::size_t, std::size_t) { throw std::runtime_error("x"); }),
                  std::runtime_error);
  std::atomic<int> runs = 0;
  executor.for_each(8, [&](std::size_t, std::size_t) { ++runs; });
  CHECK(runs == 8);
}

TEST_CASE("tasks may run tasks") {
  const openmp outer(2), inner(3);
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

TEST_CASE("the number of threads") {
  CHECK(openmp().concurrency() == static_cast<std::size_t>(omp_get_max_threads()));
  CHECK_THROWS_WITH_AS(openmp(0), "hmoe: executors::openmp with 0 threads: 1 to 4096 are possible", hmoe::error);
  CHECK_THROWS_AS(openmp(4097), hmoe::error);
}
