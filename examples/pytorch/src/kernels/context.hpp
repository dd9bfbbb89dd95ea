// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/execution/context.hpp>

#include "chosen_step.hpp"

#include <memory>
#include <type_traits>

namespace hmoe::python {

/// The threads of the module as an hmoe::executor.
class pool_executor {
public:
  explicit pool_executor(const workers& threads) noexcept : threads_(&threads) {}
  [[nodiscard]] std::size_t concurrency() const noexcept { return threads_->concurrency(); }
  template <class Task> void for_each(std::size_t count, Task&& task) const {
    using task_type = std::remove_reference_t<Task>;
    threads_->run(
        count, const_cast<void*>(static_cast<const void*>(std::addressof(task))),
        [](void* object, std::size_t i, std::size_t worker) { (*static_cast<task_type*>(object))(i, worker); });
  }

private:
  const workers* threads_;
};

using pass_context = context<chosen_backend, pool_executor>;

[[nodiscard]] inline pass_context make_context(step which, const workers& threads, workspace& scratch) {
  chosen_backend backend;
  backend.which = which;
  return pass_context(backend, pool_executor(threads), scratch);
}

} // namespace hmoe::python
