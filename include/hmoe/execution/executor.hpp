// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <concepts>
#include <cstddef>

namespace hmoe {

namespace detail {
struct any_task {
  void operator()(std::size_t /*task*/, std::size_t /*worker*/) const noexcept {}
};
} // namespace detail

/// Runs independent tasks. Requirements:
///   concurrency()          how many workers there are at most, ≥ 1
///   for_each(n, f)         calls f(task, worker) once for each task < n, with worker < concurrency(); no two calls
///                          with the same worker overlap; returns when all have ended; an exception of a task is
///                          rethrown, that of the lowest task if there are several.
/// hmoe divides work by its size and never by concurrency(), so results do not depend on the number of workers.
template <class E>
concept executor = requires(const E& e, std::size_t n, detail::any_task task) {
  { e.concurrency() } -> std::convertible_to<std::size_t>;
  e.for_each(n, task);
};

namespace executors {

/// One task after the other on the calling thread.
struct serial {
  [[nodiscard]] static constexpr std::size_t concurrency() noexcept { return 1; }
  template <class Task> void for_each(std::size_t count, Task&& task) const {
    for (std::size_t i = 0; i < count; ++i)
      task(i, std::size_t{0});
  }
};

} // namespace executors
} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
