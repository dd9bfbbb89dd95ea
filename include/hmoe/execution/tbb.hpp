// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#if !__has_include(<tbb/parallel_for.h>)
#error "hmoe/execution/tbb.hpp needs oneTBB: install it (libtbb-dev) and link hmoe::tbb"
#endif

#include <hmoe/core/error.hpp>
#include <hmoe/execution/executor.hpp>

#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <utility>

namespace hmoe::executors {

/// Tasks on the threads of oneTBB, shared with whatever else of the program runs there, handed out in order as workers
/// become free. There are never more than `threads` at work, and fewer where TBB has fewer.
class tbb {
public:
  /// As many workers as the calling thread's task arena has.
  tbb() : threads_(static_cast<std::size_t>(::tbb::this_task_arena::max_concurrency())) {}
  explicit tbb(std::size_t threads) : threads_(threads) {
    require(threads >= 1 && threads <= 4096, "executors::tbb with ", threads, " threads: 1 to 4096 are possible");
  }

  [[nodiscard]] std::size_t concurrency() const noexcept { return threads_; }

  template <class Task> void for_each(std::size_t count, Task&& task) const {
    if (threads_ == 1 || count <= 1) {
      serial{}.for_each(count, task);
      return;
    }
    std::atomic<std::size_t> next = 0;
    std::mutex failing;
    std::exception_ptr first;
    std::size_t first_task = count;
    const auto work = [&](std::size_t worker) {
      for (std::size_t i = next++; i < count; i = next++)
        // An exception would cancel the other workers.
        if (auto thrown = exception_of([&] { task(i, worker); })) {
          const std::scoped_lock lock(failing);
          if (i < first_task) {
            first_task = i;
            first = std::move(thrown);
          }
        }
    };
    // TBB distributes workers, not tasks: each has its number for as long as it works. Isolated, so that a thread that
    // waits for tasks of a task does not begin with something else meanwhile.
    ::tbb::this_task_arena::isolate(
        [&] { ::tbb::parallel_for(std::size_t{0}, std::min(threads_, count), work, ::tbb::simple_partitioner{}); });
    if (first)
      std::rethrow_exception(first);
  }

private:
  std::size_t threads_;
};

} // namespace hmoe::executors

#include <hmoe/core/macros_on.hpp>
