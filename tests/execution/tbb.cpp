// SPDX-License-Identifier: MIT
#include <hmoe/execution/tbb.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
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

TEST_CASE("by default it has as many threads as TBB" * doctest::skip(unseen)) {
  CHECK(executors::tbb().concurrency() == static_cast<std::size_t>(::tbb::this_task_arena::max_concurrency()));
}
