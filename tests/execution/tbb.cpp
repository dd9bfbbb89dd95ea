// SPDX-License-Identifier: MIT
#include <hmoe/execution/tbb.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace executors = hmoe::executors;

namespace {
// The library is not compiled with the thread sanitizer, which so cannot see how it waits and finds races that are
// none.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr bool unseen = true;
#else
constexpr bool unseen = false;
#endif
#else
constexpr bool unseen = false;
#endif
} // namespace

TEST_CASE("each task runs once, under a worker number that nobody else has at that time" * doctest::skip(unseen)) {
  static_assert(hmoe::executor<executors::tbb>);
  for (const std::size_t threads : {1U, 2U, 3U, 8U}) {
    const executors::tbb executor(threads);
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

TEST_CASE("two tasks that run at the same time have different workers" * doctest::skip(unseen)) {
  std::atomic<int> running = 0;
  std::vector<std::size_t> workers(2);
  executors::tbb(2).for_each(2, [&](std::size_t task, std::size_t worker) {
    workers[task] = worker;
    ++running;
    const auto start = std::chrono::steady_clock::now(); // on a single processor they never meet
    while (running < 2 && std::chrono::steady_clock::now() - start < std::chrono::seconds(1))
      std::this_thread::yield();
    if (task == 0 && running < 2)
      workers[0] = 2; // they did not meet
  });
  CHECK(workers[0] != workers[1]);
}

TEST_CASE("of several failures, that of the lowest task reaches the caller, after all tasks have ended" *
          doctest::skip(unseen)) {
  for (const std::size_t threads : {2U, 4U})
    for (int round = 0; round < 20; ++round) {
      std::atomic<int> ended = 0;
      const auto run = [&] {
        executors::tbb(threads).for_each(64, [&](std::size_t task, std::size_t) {
          ++ended;
          if (task >= 5 && task % 2 == 1)
            throw std::out_of_range(std::to_string(task));
        });
      };
      CHECK_THROWS_WITH_AS(run(), "5", std::out_of_range);
      CHECK(ended == 64);
    }
}

TEST_CASE("an executor works again after a failure" * doctest::skip(unseen)) {
  const executors::tbb executor(2);
  CHECK_THROWS_AS(executor.for_each(8, [](std::size_t, std::size_t) { throw std::runtime_error("x"); }),
                  std::runtime_error);
  std::atomic<int> runs = 0;
  executor.for_each(8, [&](std::size_t, std::size_t) { ++runs; });
  CHECK(runs == 8);
}

TEST_CASE("tasks may run tasks" * doctest::skip(unseen)) {
  const executors::tbb outer(2), inner(3);
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

TEST_CASE("the number of threads" * doctest::skip(unseen)) {
  CHECK(executors::tbb().concurrency() == static_cast<std::size_t>(::tbb::this_task_arena::max_concurrency()));
  CHECK_THROWS_WITH_AS(executors::tbb(0), "hmoe: executors::tbb with 0 threads: 1 to 4096 are possible", hmoe::error);
  CHECK_THROWS_AS(executors::tbb(4097), hmoe::error);
}
