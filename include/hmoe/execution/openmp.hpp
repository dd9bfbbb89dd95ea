// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#ifndef _OPENMP
#error "hmoe/execution/openmp.hpp needs OpenMP: link hmoe::openmp, or compile with -fopenmp"
#endif

#include <hmoe/core/error.hpp>
#include <hmoe/execution/executor.hpp>

#include <omp.h>

#include <cstddef>
#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

namespace hmoe::executors {

/// Tasks on OpenMP threads, handed out in order as threads become free.
class openmp {
public:
  /// As many threads as OpenMP would use (OMP_NUM_THREADS).
  openmp() : threads_(static_cast<std::size_t>(omp_get_max_threads())) {}
  explicit openmp(std::size_t threads) : threads_(threads) {
    require(threads >= 1 && threads <= 4096, "executors::openmp with ", threads, " threads: 1 to 4096 are possible");
  }

  [[nodiscard]] std::size_t concurrency() const noexcept { return threads_; }

  template <class Task> void for_each(std::size_t count, Task&& task) const {
    using task_type = std::remove_reference_t<Task>;
    // Behind a pointer, so that what follows is compiled once and a task once.
    run(count, const_cast<void*>(static_cast<const void*>(std::addressof(task))),
        [](void* object, std::size_t i, std::size_t worker) { (*static_cast<task_type*>(object))(i, worker); });
  }

private:
  using call = void (*)(void* task, std::size_t i, std::size_t worker);

  void run(std::size_t count, void* task, call of) const {
    if (threads_ == 1 || count <= 1)
      return serial{}.for_each(count, [&](std::size_t i, std::size_t worker) { of(task, i, worker); });
    std::exception_ptr first;
    std::size_t first_task = count;
    const int threads = static_cast<int>(threads_ < count ? threads_ : count);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (std::size_t i = 0; i < count; ++i) {
      // An exception must not leave an OpenMP region.
      if (auto thrown = exception_of([&] { of(task, i, static_cast<std::size_t>(omp_get_thread_num())); })) {
#pragma omp critical(hmoe_executors_openmp)
        if (i < first_task) {
          first_task = i;
          first = std::move(thrown);
        }
      }
    }
    if (first)
      std::rethrow_exception(first);
  }

  std::size_t threads_;
};

} // namespace hmoe::executors

#include <hmoe/core/macros_on.hpp>
