// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace hmoe::testing {

/// An executor on std::thread that runs its tasks in an unusual order, last first. For laws that results depend neither
/// on the threads nor on the order of tasks.
class reversed_threads {
public:
  explicit reversed_threads(std::size_t count) : count_(count) {}
  [[nodiscard]] std::size_t concurrency() const noexcept { return count_; }
  template <class Task> void for_each(std::size_t tasks, Task&& task) const {
    using task_type = std::remove_reference_t<Task>;
    // Behind a pointer, so that what follows is compiled once.
    run(tasks, const_cast<void*>(static_cast<const void*>(std::addressof(task))),
        [](void* object, std::size_t i, std::size_t worker) { (*static_cast<task_type*>(object))(i, worker); });
  }

private:
  using call = void (*)(void* task, std::size_t i, std::size_t worker);

  void run(std::size_t tasks, void* task, call of) const {
    std::vector<std::thread> threads;
    std::vector<std::exception_ptr> errors(tasks);
    for (std::size_t worker = 0; worker < count_; ++worker)
      threads.emplace_back([&, worker] {
        for (std::size_t i = tasks; i-- > 0;)
          if (i % count_ == worker) {
            try {
              of(task, i, worker);
            } catch (...) {
              errors[i] = std::current_exception();
            }
          }
      });
    for (std::thread& thread : threads)
      thread.join();
    for (const std::exception_ptr& error : errors)
      if (error)
        std::rethrow_exception(error);
  }

  std::size_t count_;
};

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
