// SPDX-License-Identifier: MIT
#include <hmoe/testing/executor_laws.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using hmoe::testing::check_executor;

namespace {
enum class fault {
  none,
  no_workers,
  skips,
  repeats,
  task_too_many,
  worker_too_many,
  shares_a_worker,
  first_come,
  swallows,
  wraps,
  stops,
  breaks,
  throws
};

/// Tasks one after the other, or in threads, with one thing wrong.
struct faulty {
  fault has = fault::none;
  std::shared_ptr<bool> broken = std::make_shared<bool>(false);

  [[nodiscard]] std::size_t concurrency() const { return has == fault::no_workers ? 0 : 2; }
  template <class Task> void for_each(std::size_t count, const Task& task) const {
    if (has == fault::throws)
      throw std::runtime_error("out of order");
    if (has == fault::breaks && *broken)
      return;
    if (has == fault::shares_a_worker) {
      std::vector<std::thread> threads;
      for (std::size_t first = 0; first < 4; ++first)
        threads.emplace_back([&, first] {
          for (std::size_t i = first; i < count; i += 4)
            try {
              task(i, std::size_t{0});
            } catch (...) { // other laws
            }
        });
      for (std::thread& thread : threads)
        thread.join();
      return;
    }
    std::exception_ptr lowest, highest;
    for (std::size_t i = 0; i < count; ++i) {
      if (has == fault::skips && i == 6)
        continue;
      try {
        task(i + (has == fault::task_too_many && i == 6 ? count : 0), has == fault::worker_too_many ? i % 3 : i % 2);
        if (has == fault::repeats && i == 6)
          task(i, std::size_t{1});
      } catch (...) {
        highest = std::current_exception();
        lowest = lowest ? lowest : highest;
        if (has == fault::stops)
          break;
      }
    }
    *broken = *broken || lowest;
    if (has == fault::wraps && lowest)
      try {
        std::rethrow_exception(lowest);
      } catch (const std::exception&) {
        throw;
      } catch (...) {
        throw std::runtime_error("a task failed");
      }
    if (lowest && has != fault::swallows)
      std::rethrow_exception(has == fault::first_come ? highest : lowest);
  }
};
std::string laws(fault has, const hmoe::testing::executor_options& options = {}) {
  return check_executor(faulty{has}, options).text();
}
bool names(const std::string& text, const char* law) { return text.find(law) != std::string::npos; }
} // namespace

TEST_CASE("a sound executor keeps the laws") {
  CHECK(laws(fault::none, {.nests = true}) == "");
  CHECK(check_executor(hmoe::executors::serial{}, {.finishes_all = false, .nests = true}).text() == "");
}

TEST_CASE("each fault of an executor is named") {
  CHECK(names(laws(fault::no_workers), "concurrency() is at least 1: it is 0"));
  CHECK(names(laws(fault::skips), "each task has run once when for_each returns: task 6 of 7 ran 0 times"));
  CHECK(names(laws(fault::repeats), "each task has run once when for_each returns: task 6 of 7 ran 2 times"));
  CHECK(names(laws(fault::task_too_many), "calls tasks below their number, with workers below concurrency()"));
  CHECK(names(laws(fault::worker_too_many), "calls tasks below their number, with workers below concurrency()"));
  CHECK(names(laws(fault::shares_a_worker), "no two calls with the same worker overlap"));
  CHECK(names(laws(fault::first_come), "rethrows the exception of the lowest task: tasks 5, 7, 9 and so on threw, it "
                                       "threw that of task 63"));
  CHECK(names(laws(fault::swallows), "rethrows the exception of the lowest task: tasks 5, 7, 9 and so on threw, it "
                                     "threw nothing"));
  CHECK(names(laws(fault::wraps), "works without an exception: an exception was thrown: a task failed"));
  CHECK(names(laws(fault::stops), "a failure keeps no other task from running: of 64 tasks 6 ran"));
  CHECK(laws(fault::stops, {.finishes_all = false}) == "");
  CHECK(names(laws(fault::breaks), "each task has run once when for_each returns: task 0 of 8 ran 0 times"));
  CHECK(names(laws(fault::throws), "works without an exception: an exception was thrown: out of order"));
}
