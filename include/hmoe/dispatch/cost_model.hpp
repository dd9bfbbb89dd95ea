// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/blocks.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/context.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace hmoe::dispatch {

/// The dropless strategies that the cost model knows.
enum class strategy { per_token, scattered, sorted, blocked, looped, dense };
inline constexpr std::size_t strategy_count = 6;
/// Rows of a block where the model or dispatch::automatic takes `blocked`.
inline constexpr std::size_t automatic_block = 64;

[[nodiscard]] constexpr std::string_view name_of(strategy s) noexcept {
  constexpr std::array<std::string_view, strategy_count> names{"per_token", "scattered", "sorted",
                                                               "blocked",   "looped",    "dense"};
  return names[static_cast<std::size_t>(s)];
}
/// hmoe::error for another name.
[[nodiscard]] inline strategy strategy_of(std::string_view name) {
  for (std::size_t i = 0; i < strategy_count; ++i)
    if (name_of(static_cast<strategy>(i)) == name)
      return static_cast<strategy>(i);
  fail("no dispatch strategy is called \"" + std::string(name) +
       "\": possible are per_token, scattered, sorted, blocked, looped and dense");
}

/// What a machine can do with one form of weights, all threads together; dispatch::measure_machine finds out. The
/// defaults are of two Zen 4 cores and float weights as they are.
struct machine_limits {
  double flops = 190e9;       ///< per second, with many rows
  double first_read = 14e9;   ///< bytes of weights per second that a row reads for the first time
  double next_read = 42e9;    ///< and again, from a cache; for weights as they are, packing them included
  double cache_bytes = 32e6;  ///< weights of a batch up to here stay cached from one batch to the next; 0: other layers
                              ///< run in between
  double row_copy = 8e9;      ///< bytes of rows per second, read and written
  double wait_seconds = 5e-6; ///< of a phase, until all threads have begun and ended
  double task_seconds = 2e-7; ///< of handing out a piece of work
  double plan_seconds = 5e-9; ///< of an entry in a counting sort
  std::size_t threads = 2;
};

/// The rows of an expert in a batch, and what one of them costs.
struct expert_work {
  std::size_t rows = 0;
  double flops_per_row = 0; ///< forward
  double bytes = 0;         ///< of its weights
};
/// A batch as the model sees it.
struct dispatch_load {
  std::size_t tokens = 0, entries = 0;
  double row_bytes = 0;   ///< d_model values
  std::size_t phases = 1; ///< that experts take together, forward
  bool training = false;  ///< forward and backward
  vector_view<const expert_work> experts{};
};

/// Predicted seconds, in parts.
struct predicted_time {
  double weights = 0; ///< bytes of weights, and of their gradients
  double flops = 0;
  double rows = 0;  ///< bytes of rows that are gathered, permuted and combined
  double tasks = 0; ///< the plan, and handing out work
  double waits = 0;

  /// Reading weights and multiplying overlap: most of the shorter of the two is hidden.
  [[nodiscard]] double total() const noexcept {
    constexpr double not_hidden = 0.4;
    return std::max(weights, flops) + not_hidden * std::min(weights, flops) + rows + tasks + waits;
  }
};

/// The model: r_e rows on expert e, n entries, T tokens, N experts.
///   weights  Σ_{r_e ≠ 0} bytes_e · (1 / first_read + (passes_e − 1) / next_read); passes_e = r_e for per_token,
///            ⌈r_e / 64⌉ for blocked, 1 else; next_read for all where these bytes are at most cache_bytes; 2.8 times
///            that in training, where gradients are read and written
///            Scattered: 1.05 times as much, since it reads the last matrices of all experts in turn, panel by panel.
///   flops    Σ (r_e − passes_e) · flops_e / flops (the first row of a pass is in `weights`); 3 times that in training
///   rows     copies · d_model bytes / row_copy; copies = 4n + T for sorted and blocked, 6n for looped, 4n for
///            scattered, 2n + T for per_token, N T + 3n for dense; 3 times that in training
///   waits    parallel phases: those of the experts, and one each for gather and combine of more than 64 rows
[[nodiscard]] inline predicted_time predict(strategy s, const dispatch_load& load, const machine_limits& machine) {
  const bool each_token = s == strategy::per_token && !load.training; // trains as sorted
  double used = 0, first = 0, again = 0, flops = 0, work = 0;
  for (const expert_work& e : load.experts) {
    const std::size_t rows = s == strategy::dense ? load.tokens : e.rows;
    if (rows == 0)
      continue;
    const std::size_t passes = each_token ? rows : s == strategy::blocked ? blocks_of(rows, automatic_block) : 1;
    ++used;
    first += e.bytes;
    again += e.bytes * static_cast<double>(passes - 1);
    flops += e.flops_per_row * static_cast<double>(rows - passes);
    work += e.flops_per_row * static_cast<double>(rows);
  }
  const auto n = static_cast<double>(load.entries), tokens = static_cast<double>(load.tokens);
  const auto phases = static_cast<double>(load.phases) * (load.training ? 2 : 1);
  const bool loops = s == strategy::looped || s == strategy::dense;
  double copies = 4 * n + tokens, own_phases = load.entries > 64 ? 2 : 0; // of gather and combine
  if (each_token)
    copies = 2 * n + tokens, own_phases = load.tokens > 64 ? 1 : 0;
  else if (s == strategy::scattered)
    copies = 4 * n, own_phases = load.tokens > 64 ? 1 : 0;
  else if (s == strategy::looped)
    copies = 6 * n, own_phases = load.entries > 64 ? 2 * used : 0;
  else if (s == strategy::dense)
    copies = used * tokens + 3 * n, own_phases = 0;
  const double all_phases = phases * (loops ? used : 1) + own_phases;
  // Pieces are not smaller than 2^17 multiply-adds, and not many more than 64 for a phase.
  const double pieces = std::clamp(work / 2 / phases / (1U << 17U), used, 64 + used);

  predicted_time result;
  const double first_read = first <= machine.cache_bytes ? machine.next_read : machine.first_read;
  result.weights = (first / first_read + again / machine.next_read) * (load.training ? 2.8 : 1);
  if (s == strategy::scattered && used > 1)
    result.weights *= 1.05;
  result.flops = flops / machine.flops * (load.training ? 3 : 1);
  result.rows = copies * load.row_bytes / machine.row_copy * (load.training ? 3 : 1);
  result.tasks = all_phases * pieces / std::max(1.0, loops ? used : 1.0) * machine.task_seconds;
  if (!each_token && s != strategy::dense)
    result.tasks += (n + static_cast<double>(load.experts.size())) * machine.plan_seconds;
  result.waits = machine.threads > 1 ? all_phases * machine.wait_seconds : 0;
  return result;
}

/// The one of the shortest predicted time, the earlier one of two; never dense.
[[nodiscard]] inline strategy quickest(const dispatch_load& load, const machine_limits& machine) {
  strategy best = strategy::per_token;
  double least = 0;
  for (std::size_t i = 0; i < strategy_count; ++i)
    if (const auto s = static_cast<strategy>(i); s != strategy::dense)
      if (const double time = predict(s, load, machine).total(); i == 0 || time < least) {
        best = s;
        least = time;
      }
  return best;
}

/// Fills work[N] for an assignment, and gives the load of a batch.
template <execution_context Context, class Experts, class T>
[[nodiscard]] dispatch_load load_of(const Context& ctx, const Experts& experts, const assignment<T>& assigned,
                                    bool training, vector_view<expert_work> work) {
  dispatch_load load;
  for (std::size_t e = 0; e < experts.size(); ++e)
    work[e] = {0, experts.flops_per_row(e), static_cast<double>(experts.bytes(e))};
  for (const index_t e : assigned.experts()) {
    require(e < experts.size(), "the assignment names expert ", e, ", the set has ", experts.size());
    ++work[e].rows;
  }
  load.tokens = assigned.tokens();
  load.entries = assigned.size();
  load.row_bytes = static_cast<double>(experts.d_model() * sizeof(T));
  load.phases = experts.phases_of(ctx);
  load.training = training;
  load.experts = work;
  return load;
}

/// What the model says of a batch: layer.explain makes it.
struct explanation {
  struct line {
    strategy which;
    predicted_time time;
  };
  std::vector<line> lines;
  strategy picked = strategy::sorted; ///< by dispatch::automatic
  std::string reason;                 ///< the table of measured times, or the cost model

  /// A table, times in microseconds.
  [[nodiscard]] std::string text() const {
    std::string all = "strategy     weights      flops       rows      tasks      waits      total  (us)\n";
    for (const line& l : lines) {
      std::array<char, 128> row{};
      std::snprintf(row.data(), row.size(), "%-10s %9.1f  %9.1f  %9.1f  %9.1f  %9.1f  %9.1f\n",
                    std::string(name_of(l.which)).c_str(), l.time.weights * 1e6, l.time.flops * 1e6, l.time.rows * 1e6,
                    l.time.tasks * 1e6, l.time.waits * 1e6, l.time.total() * 1e6);
      all += row.data();
    }
    return all + "automatic picks " + std::string(name_of(picked)) + ", by " + reason + "\n";
  }
};

} // namespace hmoe::dispatch
