// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/probes/nesting.hpp>

#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <system_error>
#include <vector>

namespace hmoe::probes {

/// Readings of a CPU's counters, in user mode.
struct counts {
  std::uint64_t cycles = 0, instructions = 0, cache_misses = 0; ///< misses of the last-level cache

  counts& operator+=(const counts& o) noexcept {
    cycles += o.cycles;
    instructions += o.instructions;
    cache_misses += o.cache_misses;
    return *this;
  }
  friend counts operator-(counts a, const counts& b) noexcept {
    a.cycles -= b.cycles;
    a.instructions -= b.instructions;
    a.cache_misses -= b.cache_misses;
    return a;
  }
};

namespace detail {
/// The counters of the calling thread, open as long as it lives.
class thread_counters {
public:
  thread_counters() {
    for (const std::uint64_t what :
         {PERF_COUNT_HW_CPU_CYCLES, PERF_COUNT_HW_INSTRUCTIONS, PERF_COUNT_HW_CACHE_MISSES}) {
      perf_event_attr wanted{};
      wanted.type = PERF_TYPE_HARDWARE;
      wanted.size = sizeof wanted;
      wanted.config = what;
      wanted.exclude_kernel = 1;
      wanted.exclude_hv = 1;
      wanted.read_format = PERF_FORMAT_GROUP;
      const auto opened = static_cast<int>(::syscall(SYS_perf_event_open, &wanted, 0, -1, opened_[0], 0UL));
      if (opened < 0) {
        error_ = errno;
        close_all();
        return;
      }
      opened_[count_++] = opened;
    }
  }
  thread_counters(const thread_counters&) = delete;
  thread_counters& operator=(const thread_counters&) = delete;
  ~thread_counters() { close_all(); }

  [[nodiscard]] int error() const noexcept { return error_; } ///< 0: they count
  [[nodiscard]] counts read() const noexcept {
    struct {
      std::uint64_t count, values[3];
    } group{};
    if (error_ != 0 || ::read(opened_[0], &group, sizeof group) != static_cast<::ssize_t>(sizeof group))
      return {};
    return {group.values[0], group.values[1], group.values[2]};
  }
  [[nodiscard]] static const thread_counters& of_this_thread() {
    thread_local const thread_counters mine;
    return mine;
  }

private:
  void close_all() noexcept {
    while (count_ != 0)
      ::close(opened_[--count_]);
  }
  std::array<int, 3> opened_{-1, -1, -1};
  std::size_t count_ = 0;
  int error_ = 0;
};
} // namespace detail

/// Cycles, instructions and cache misses of each stage, through Linux's perf events: context{backend, executor,
/// probes::counters{}}, then ctx.probe().table(). Where the machine does not let them be read, nothing is counted and
/// why_not() says why. An event costs two system calls: times of small stages grow by microseconds.
class counters {
public:
  counters() : error_(detail::thread_counters::of_this_thread().error()) {}

  void prepare(std::size_t workers) { workers_.assign(workers, of_worker{}); }
  void begin(const event& e) noexcept {
    if (error_ == 0)
      workers_[e.worker].open.begin(detail::thread_counters::of_this_thread().read());
  }
  void end(const event& e) noexcept {
    if (error_ == 0)
      workers_[e.worker].sums[index(e.stage, e.direction)] +=
          workers_[e.worker].open.end(detail::thread_counters::of_this_thread().read());
  }

  [[nodiscard]] bool available() const noexcept { return error_ == 0; }
  /// Empty where the counters can be read.
  [[nodiscard]] std::string why_not() const {
    if (error_ == 0)
      return "";
    const std::string reason = std::error_code(error_, std::generic_category()).message();
    if (error_ == EACCES || error_ == EPERM)
      return "the counters of the CPU may not be read (" + reason +
             "): allow it with sysctl kernel.perf_event_paranoid=2, or run with CAP_PERFMON";
    return "this machine has no counters of cycles, instructions and cache misses to read (" + reason +
           "), as many virtual machines";
  }
  /// Of all workers since the context was made, without the stages inside it.
  [[nodiscard]] counts total(stage s, direction d) const noexcept {
    counts all;
    for (const of_worker& own : workers_)
      all += own.sums[index(s, d)];
    return all;
  }
  /// A line for each stage that took cycles, or the sentence of why_not().
  [[nodiscard]] std::string table() const {
    if (error_ != 0)
      return why_not() + "\n";
    std::string text;
    for (const direction d : {direction::forward, direction::backward}) {
      char line[128];
      std::snprintf(line, sizeof line, "%-12s %12s %14s %8s %14s\n", d == direction::forward ? "forward" : "backward",
                    "Mcycles", "Minstructions", "per cycle", "cache misses");
      text += line;
      for (std::size_t s = 0; s < stage_count; ++s) {
        const counts c = total(static_cast<stage>(s), d);
        if (c.cycles == 0)
          continue;
        std::snprintf(line, sizeof line, "  %-10s %12.3f %14.3f %9.2f %14llu\n", name_of(static_cast<stage>(s)),
                      1e-6 * static_cast<double>(c.cycles), 1e-6 * static_cast<double>(c.instructions),
                      static_cast<double>(c.instructions) / static_cast<double>(c.cycles),
                      static_cast<unsigned long long>(c.cache_misses));
        text += line;
      }
    }
    return text;
  }

private:
  struct alignas(64) of_worker {
    nesting<counts> open;
    std::array<counts, stage_count * 2> sums{};
  };
  [[nodiscard]] static std::size_t index(stage s, direction d) noexcept {
    return static_cast<std::size_t>(d) * stage_count + static_cast<std::size_t>(s);
  }

  int error_;
  std::vector<of_worker> workers_;
};

} // namespace hmoe::probes

#include <hmoe/core/macros_on.hpp>
