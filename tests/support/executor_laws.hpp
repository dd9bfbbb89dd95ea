// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/execution/executor.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

namespace support {

/// What an executor with threads of its own must do, whatever they are: Executor(n) has n workers.
template <hmoe::executor Executor> void check_threaded_executor(const std::string& name) {
  SUBCASE("each task runs once, under a worker number that nobody else has at that time") {
    for (const std::size_t threads : {1U, 2U, 3U, 8U}) {
      const Executor executor(threads);
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
  SUBCASE("of several failures, that of the lowest task reaches the caller, after all tasks have ended") {
    for (const std::size_t threads : {2U, 4U})
      for (int round = 0; round < 20; ++round) {
        std::atomic<int> ended = 0;
        const auto run = [&] {
          Executor(threads).for_each(64, [&](std::size_t task, std::size_t) {
            ++ended;
            if (task >= 5 && task % 2 == 1)
              throw std::out_of_range(std::to_string(task));
          });
        };
        CHECK_THROWS_WITH_AS(run(), "5", std::out_of_range);
        CHECK(ended == 64);
      }
  }
  SUBCASE("it works again after a failure") {
    const Executor executor(2);
    CHECK_THROWS_AS(executor.for_each(8, [](std::size_t, std::size_t) { throw std::runtime_error("x"); }),
                    std::runtime_error);
    std::atomic<int> runs = 0;
    executor.for_each(8, [&](std::size_t, std::size_t) { ++runs; });
    CHECK(runs == 8);
  }
  SUBCASE("tasks may run tasks") {
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

} // namespace support
