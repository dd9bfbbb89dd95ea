// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/probes/nesting.hpp>

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

namespace hmoe::probes {

/// What the events of a stage add up to.
struct stage_totals {
  std::size_t calls = 0, rows = 0;
  double seconds = 0; ///< of all workers together, without the stages inside it
  double bytes = 0, flops = 0;

  stage_totals& operator+=(const stage_totals& other) noexcept {
    calls += other.calls;
    rows += other.rows;
    seconds += other.seconds;
    bytes += other.bytes;
    flops += other.flops;
    return *this;
  }
};

/// Adds up the events of each stage, and of each stage and expert: context{backend, executor, probes::stages{N}}, then
/// ctx.probe().table(). All memory is taken when the context is made; an event costs two readings of the clock.
/// Results are read between passes.
class stages {
public:
  /// Totals for experts of ids below `experts`; the events of others count in the totals of their stage alone.
  explicit stages(std::size_t experts = 0) : experts_(experts) {}

  void prepare(std::size_t workers) { workers_.assign(workers, of_worker(stage_count * 2 * (1 + experts_))); }
  void begin(const event& e) noexcept { workers_[e.worker].open.begin(clock::now().time_since_epoch()); }
  void end(const event& e) noexcept {
    of_worker& own = workers_[e.worker];
    const clock::duration took = own.open.end(clock::now().time_since_epoch());
    const stage_totals one{1, e.rows, std::chrono::duration<double>(took).count(), e.bytes, e.flops};
    own.sums[index(e.stage, e.direction, 0)] += one;
    if (e.expert < experts_)
      own.sums[index(e.stage, e.direction, 1 + e.expert)] += one;
  }

  [[nodiscard]] std::size_t experts() const noexcept { return experts_; }
  /// Of all workers since the context was made, or since reset().
  [[nodiscard]] stage_totals total(stage s, direction d) const noexcept { return sum(index(s, d, 0)); }
  [[nodiscard]] stage_totals total(stage s, direction d, std::size_t expert) const {
    require(expert < experts_, "probes::stages has totals of ", experts_, " experts, asked is expert ", expert);
    return sum(index(s, d, 1 + expert));
  }
  void reset() noexcept {
    for (of_worker& own : workers_)
      own.sums.assign(own.sums.size(), stage_totals{});
  }

  /// A line for each stage that had an event, and where there are totals of experts, a line for each of them.
  [[nodiscard]] std::string table() const {
    std::string text;
    double all = 0;
    for (const direction d : {direction::forward, direction::backward})
      for (std::size_t s = 0; s < stage_count; ++s)
        all += total(static_cast<stage>(s), d).seconds;
    for (const direction d : {direction::forward, direction::backward}) {
      add_line(text, d == direction::forward ? "forward" : "backward");
      for (std::size_t s = 0; s < stage_count; ++s)
        add_row(text, name_of(static_cast<stage>(s)), total(static_cast<stage>(s), d), all);
      for (std::size_t e = 0; e < experts_; ++e) {
        stage_totals of_expert;
        for (std::size_t s = 0; s < stage_count; ++s)
          of_expert += total(static_cast<stage>(s), d, e);
        of_expert.rows = total(stage::down, d, e).rows + total(stage::expert, d, e).rows;
        add_row(text, ("expert " + std::to_string(e)).c_str(), of_expert, all);
      }
    }
    return text;
  }

private:
  using clock = std::chrono::steady_clock;
  struct alignas(64) of_worker {
    explicit of_worker(std::size_t count) : sums(count) {}
    nesting<clock::duration> open;
    std::vector<stage_totals> sums;
  };

  [[nodiscard]] static std::size_t index(stage s, direction d, std::size_t who) noexcept {
    return (who * 2 + static_cast<std::size_t>(d)) * stage_count + static_cast<std::size_t>(s);
  }
  [[nodiscard]] stage_totals sum(std::size_t at) const noexcept {
    stage_totals all;
    for (const of_worker& own : workers_)
      all += own.sums[at];
    return all;
  }
  static void add_line(std::string& text, const char* direction) {
    char line[128];
    std::snprintf(line, sizeof line, "%-12s %9s %6s %9s %9s %9s %9s\n", direction, "ms", "%", "rows", "MB", "GB/s",
                  "GFLOP/s");
    text += line;
  }
  static void add_row(std::string& text, const char* name, const stage_totals& t, double all) {
    if (t.calls == 0)
      return;
    const double seconds = t.seconds > 0 ? t.seconds : 1;
    char line[128];
    std::snprintf(line, sizeof line, "  %-10.10s %9.3f %6.1f %9zu %9.2f %9.2f %9.2f\n", name, 1e3 * t.seconds,
                  all > 0 ? 100 * t.seconds / all : 0, t.rows, 1e-6 * t.bytes, 1e-9 * t.bytes / seconds,
                  1e-9 * t.flops / seconds);
    text += line;
  }

  std::size_t experts_;
  std::vector<of_worker> workers_;
};

} // namespace hmoe::probes

#include <hmoe/core/macros_on.hpp>
