// SPDX-License-Identifier: MIT
#include "thread_pool.hpp"

#include <hmoe/core/error.hpp>

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace hmoe::python {
namespace {

constexpr std::size_t most_threads = 256;
constexpr int spins = 2000; // about 50 µs: phases of a pass follow one another more quickly

void pause_briefly() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}
/// Waits until the value is another than `old`, and returns it.
std::uint32_t changed(const std::atomic<std::uint32_t>& value, std::uint32_t old) noexcept {
  for (int i = 0; i < spins; ++i) {
    if (const std::uint32_t now = value.load(std::memory_order_acquire); now != old)
      return now;
    pause_briefly();
  }
  for (;;) {
    value.wait(old, std::memory_order_acquire);
    if (const std::uint32_t now = value.load(std::memory_order_acquire); now != old)
      return now;
  }
}

/// f(data) on `threads` threads of OpenMP: what compilers call for a parallel region, of GNU's library and of LLVM's.
using parallel_region = void (*)(void (*f)(void*), void* data, unsigned threads, unsigned flags);

/// That of the library that is loaded for all of the process to see, as torch's is; null where there is none.
parallel_region loaded_openmp() noexcept {
  static std::atomic<parallel_region> found{nullptr};
  parallel_region region = found.load(std::memory_order_relaxed);
  if (region == nullptr) { // it may be loaded later
    region = reinterpret_cast<parallel_region>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    found.store(region, std::memory_order_relaxed);
  }
  return region;
}

/// What a process has: a child after fork begins with a new one, whatever the parent's threads were doing.
struct process_memory {
  explicit process_memory(bool child) : forked(child) {}
  bool forked;
  thread_pool pool;
  std::mutex mutex;
  std::vector<std::unique_ptr<workspace>> spare;
};
process_memory* memory_of_process = nullptr;

process_memory& own_memory() {
  static std::once_flag once;
  std::call_once(once, [] {
    memory_of_process = new process_memory(false);
    pthread_atfork(nullptr, nullptr, [] { memory_of_process = new process_memory(true); });
  });
  return *memory_of_process;
}

} // namespace

struct thread_pool::state {
  std::mutex in_use;
  std::vector<std::thread> helpers;
  /// Changes with every job; the lower byte says how many helpers take part in it.
  std::atomic<std::uint32_t> job{0};
  std::atomic<std::uint32_t> pending{0};
  std::atomic<std::size_t> next{0}, next_worker{0};
  std::size_t count = 0;
  void* task = nullptr;
  workers::call of = nullptr;
  std::mutex failing;
  std::size_t first_failed = 0;
  std::exception_ptr failure;

  void work(std::size_t worker) noexcept {
    for (std::size_t i = next.fetch_add(1, std::memory_order_relaxed); i < count;
         i = next.fetch_add(1, std::memory_order_relaxed)) {
      try {
        of(task, i, worker);
      } catch (...) {
        const std::lock_guard lock(failing);
        if (failure == nullptr || i < first_failed) {
          first_failed = i;
          failure = std::current_exception();
        }
      }
    }
  }
  [[noreturn]] void help(std::size_t worker, std::uint32_t seen) noexcept {
    for (;;) {
      seen = changed(job, seen);
      if (worker > (seen & 0xffU))
        continue;
      work(worker);
      if (pending.fetch_sub(1, std::memory_order_acq_rel) == 1)
        pending.notify_one();
    }
  }
  /// Tasks on the helpers beside the calling thread, or in a parallel region of so many threads.
  void run_on_helpers(std::size_t count_of_helpers);
  void run_on(parallel_region openmp, unsigned threads);
};

void thread_pool::state::run_on(parallel_region openmp, unsigned threads) {
  next_worker.store(0, std::memory_order_relaxed);
  const auto work_of = [](void* pool) {
    auto& own = *static_cast<state*>(pool);
    own.work(own.next_worker.fetch_add(1, std::memory_order_relaxed));
  };
  openmp(work_of, this, threads, 0);
}

void thread_pool::state::run_on_helpers(std::size_t count_of_helpers) {
  while (helpers.size() < count_of_helpers)
    helpers.emplace_back([this, worker = helpers.size() + 1, seen = job.load()] { help(worker, seen); });
  const auto some = static_cast<std::uint32_t>(count_of_helpers);
  pending.store(some, std::memory_order_relaxed);
  job.store(((job.load(std::memory_order_relaxed) & ~0xffU) + 0x100U) | some, std::memory_order_release);
  job.notify_all();
  work(0);
  for (std::uint32_t left = pending.load(std::memory_order_acquire); left != 0;)
    left = changed(pending, left);
}

thread_pool::thread_pool() : state_(new state) {}

thread_pool& thread_pool::instance() { return own_memory().pool; }

void thread_pool::run(std::size_t threads, std::size_t count, void* task, workers::call of) {
  const auto alone = [&] {
    for (std::size_t i = 0; i < count; ++i)
      of(task, i, 0);
  };
  if (threads == 1 || count <= 1)
    return alone();
  state& s = *state_;
  const std::unique_lock lock(s.in_use, std::try_to_lock);
  if (!lock.owns_lock())
    return alone();
  s.next.store(0, std::memory_order_relaxed);
  s.count = count;
  s.task = task;
  s.of = of;
  s.failure = nullptr;
  if (const parallel_region openmp = own_memory().forked ? nullptr : loaded_openmp())
    s.run_on(openmp, static_cast<unsigned>(threads)); // a smaller team than torch's would end some of its threads
  else
    s.run_on_helpers((threads < count ? threads : count) - 1);
  if (s.failure != nullptr)
    std::rethrow_exception(std::exchange(s.failure, nullptr));
}

void prepare_for_fork() { own_memory(); }

pool_threads::pool_threads(std::size_t threads) : threads_(std::min(threads, most_threads)) {
  require(threads >= 1, "a pass on ", threads, " threads: at least 1 is needed");
}

lent_workspace::lent_workspace() {
  process_memory& own = own_memory();
  const std::lock_guard lock(own.mutex);
  if (own.spare.empty()) {
    memory_ = std::make_unique<workspace>();
  } else {
    memory_ = std::move(own.spare.back());
    own.spare.pop_back();
  }
}
lent_workspace::~lent_workspace() {
  process_memory& own = own_memory();
  const std::lock_guard lock(own.mutex);
  own.spare.push_back(std::move(memory_));
}
std::size_t scratch_bytes() {
  process_memory& own = own_memory();
  const std::lock_guard lock(own.mutex);
  std::size_t sum = 0;
  for (const auto& each : own.spare)
    sum += each->capacity();
  return sum;
}
void release_scratch() {
  process_memory& own = own_memory();
  const std::lock_guard lock(own.mutex);
  own.spare.clear();
}

} // namespace hmoe::python
