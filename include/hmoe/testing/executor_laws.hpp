// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/execution/executor.hpp>
#include <hmoe/testing/report.hpp>

#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace hmoe::testing {

/// What an executor promises beyond the concept.
struct executor_options {
  bool finishes_all = true; ///< off: after a task has failed, tasks that have not begun may be left out
  bool nests = false;       ///< tasks may call for_each of the same executor
};

namespace detail {

/// What happened to the tasks of one for_each. Tasks share it, so that it outlives an executor that returns too early.
class task_log {
public:
  task_log(std::size_t tasks, std::size_t workers) : runs_(tasks), busy_(workers) {}

  void run(std::size_t task, std::size_t worker) {
    if (task >= runs_.size() || worker >= busy_.size()) {
      ++out_of_range_;
      return;
    }
    if (busy_[worker].exchange(true))
      ++overlaps_;
    std::this_thread::yield(); // so that overlaps happen
    ++runs_[task];
    std::this_thread::yield();
    busy_[worker] = false;
  }
  [[nodiscard]] std::size_t out_of_range() const noexcept { return out_of_range_; }
  [[nodiscard]] std::size_t overlaps() const noexcept { return overlaps_; }
  [[nodiscard]] int runs(std::size_t task) const noexcept { return runs_[task]; }
  [[nodiscard]] std::size_t tasks() const noexcept { return runs_.size(); }

private:
  std::vector<std::atomic<int>> runs_;
  std::vector<std::atomic<bool>> busy_;
  std::atomic<std::size_t> out_of_range_ = 0, overlaps_ = 0;
};

template <class Executor> void check_tasks(const Executor& executor, std::size_t count, report& found) {
  const auto log = std::make_shared<task_log>(count, executor.concurrency());
  executor.for_each(count, [log](std::size_t task, std::size_t worker) { log->run(task, worker); });
  found.expect(log->out_of_range() == 0, "calls tasks below their number, with workers below concurrency()", "of ",
               count, " tasks ", log->out_of_range(), " calls had another task or worker");
  found.expect(log->overlaps() == 0, "no two calls with the same worker overlap", "of ", count, " tasks ",
               log->overlaps(), " began while another one had their worker's number");
  for (std::size_t i = 0; i < count; ++i)
    found.expect(log->runs(i) == 1, "each task has run once when for_each returns", "task ", i, " of ", count, " ran ",
                 log->runs(i), " times");
}

template <class Executor> void check_failures(const Executor& executor, bool finishes_all, report& found) {
  constexpr std::size_t count = 64;
  for (int round = 0; round < 20; ++round) {
    const auto started = std::make_shared<std::atomic<std::size_t>>(0),
               ended = std::make_shared<std::atomic<std::size_t>>(0);
    std::string caught = "nothing";
    try {
      executor.for_each(count, [started, ended](std::size_t task, std::size_t) {
        ++*started;
        std::this_thread::yield();
        ++*ended;
        if (task >= 5 && task % 2 == 1)
          throw std::out_of_range(std::to_string(task));
      });
    } catch (const std::out_of_range& e) {
      caught = e.what();
    }
    found.expect(caught == "5", "rethrows the exception of the lowest task", "tasks 5, 7, 9 and so on threw, it threw ",
                 caught == "nothing" ? caught : "that of task " + caught);
    found.expect(*started == *ended, "no task runs any more when for_each throws", *started, " had begun, ", *ended,
                 " had ended");
    found.expect(!finishes_all || *ended == count, "a failure keeps no other task from running", "of ", count,
                 " tasks ", *ended, " ran");
  }
  int caught = 0;
  try {
    executor.for_each(4, [](std::size_t task, std::size_t) {
      if (task == 2)
        throw 7;
    });
  } catch (int value) {
    caught = value;
  }
  found.expect(caught == 7, "rethrows exceptions of any type", "a task threw the number 7, it threw ",
               caught == 0 ? "nothing" : "another one");
}

} // namespace detail

/// Checks an executor: each task runs once, before for_each returns, under a worker number below concurrency() that no
/// other running task has; the exception of the lowest task that failed reaches the caller when no task runs any more;
/// and it works again afterwards. A wrong one is found with certainty only if it is wrong with certainty.
template <executor Executor>
[[nodiscard]] report check_executor(const Executor& executor, const executor_options& options = {}) {
  report found;
  found.expect_no_throw("works without an exception", [&] {
    if (!found.expect(executor.concurrency() >= 1, "concurrency() is at least 1", "it is ", executor.concurrency()))
      return;
    for (const std::size_t count : {0U, 1U, 2U, 7U, 500U})
      detail::check_tasks(executor, count, found);
    detail::check_failures(executor, options.finishes_all, found);
    detail::check_tasks(executor, 8, found);
    if (!options.nests)
      return;
    const auto runs = std::make_shared<detail::task_log>(12, 1);
    const auto beyond = std::make_shared<std::atomic<std::size_t>>(0);
    executor.for_each(4, [&executor, runs, beyond](std::size_t i, std::size_t) {
      executor.for_each(3, [&executor, runs, beyond, i](std::size_t j, std::size_t worker) {
        runs->run(i * 3 + j, 0);
        *beyond += worker < executor.concurrency() ? 0 : 1;
      });
    });
    for (std::size_t task = 0; task < runs->tasks(); ++task)
      found.expect(runs->runs(task) == 1 && *beyond == 0, "tasks may run tasks", "task ", task % 3, " of task ",
                   task / 3, " ran ", runs->runs(task), " times, or as a worker that there is not");
  });
  return found;
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
