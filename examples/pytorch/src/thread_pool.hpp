// SPDX-License-Identifier: MIT
#pragma once

#include "passes.hpp"

#include <cstddef>
#include <memory>

namespace hmoe::python {

/// Threads for the passes of this process: those of OpenMP where a library of it is loaded for all of the process, as
/// torch's is. Its threads look for work some milliseconds long after each operator, on CPUs that others would need.
/// Elsewhere threads of its own, up to the most that any call has asked for; so also in a child process after fork,
/// where OpenMP's do not exist and GNU's library would wait for them for ever. One call uses them at a time; a call
/// beside it runs on its own thread alone, with the same results.
class thread_pool {
public:
  thread_pool();
  /// The pool of this process.
  [[nodiscard]] static thread_pool& instance();

  /// `count` tasks on `threads` threads, of which the calling one is worker 0.
  void run(std::size_t threads, std::size_t count, void* task, workers::call of);

private:
  struct state;
  state* state_; ///< never deleted: at exit threads may still wait for work
};

/// Called when the module is loaded: a fork before the first pass must be known, too.
void prepare_for_fork();

/// A number of threads of the pool, for one pass.
class pool_threads final : public workers {
public:
  /// 256 of them at most. hmoe::error for none.
  explicit pool_threads(std::size_t threads);
  void run(std::size_t count, void* task, call of) const override {
    thread_pool::instance().run(threads_, count, task, of);
  }
  [[nodiscard]] std::size_t concurrency() const noexcept override { return threads_; }

private:
  std::size_t threads_;
};

/// Scratch memory for a pass, lent by the process: as many workspaces exist as passes ran side by side.
class lent_workspace {
public:
  lent_workspace();
  lent_workspace(const lent_workspace&) = delete;
  lent_workspace& operator=(const lent_workspace&) = delete;
  ~lent_workspace();
  [[nodiscard]] workspace& operator*() const noexcept { return *memory_; }
  [[nodiscard]] workspace* get() const noexcept { return memory_.get(); }

private:
  std::unique_ptr<workspace> memory_;
};
/// Bytes that are held for passes, and gives those back that no pass uses.
[[nodiscard]] std::size_t scratch_bytes();
void release_scratch();

} // namespace hmoe::python
