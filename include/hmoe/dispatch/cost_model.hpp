// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/blocks.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/dispatch/strategy.hpp>
#include <hmoe/execution/context.hpp>

#include <algorithm>
#include <cstddef>

namespace hmoe::dispatch {

/// What a machine can do with one form of weights, all threads together; dispatch::measure_machine finds out. The
/// defaults are of two Zen 4 cores and float weights as they are.
struct machine_limits {
  double flops = 190e9;        ///< per second, with many rows
  double first_read = 16e9;    ///< bytes of weights per second that a row reads from memory
  double next_read = 42e9;     ///< and from a cache; for weights as they are, packing them included
  double read_by_token = 36e9; ///< of weights that per_token reads once more, for another row of a batch
  double not_hidden = 1; ///< share of the shorter one of reading and multiplying that the longer one does not hide:
                         ///< 1 where rows wait until weights are packed
  double scattered_read = 1.05; ///< time of reading weights in the order of `scattered` ÷ in that of `sorted`
  double scattered_row = 0;     ///< seconds that a row takes longer by `scattered` than this model says; often less
                                ///< than 0: small copies of rows cost more than bytes / row_copy
  double cache_bytes = 32e6;    ///< weights of a batch up to here stay cached from one batch to the next; 0: other
                                ///< layers run in between
  double row_copy = 11e9;       ///< bytes of rows per second, read and written, beyond the caches
  double wait_seconds = 1e-6;   ///< of a phase, until all threads have begun and ended
  double task_seconds = 1e-8;   ///< of handing out a piece of work
  double loop_seconds = 1e-5;   ///< more that a phase of one expert alone takes than its share of one of all experts
  double plan_seconds = 5e-9;   ///< of an entry in a counting sort
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
  double row_bytes = 0;           ///< d_model values
  std::size_t phases = 1;         ///< that experts take together, forward
  std::size_t scatter_copies = 4; ///< of a row that scatters, forward: experts.scatter_copies(ctx)
  bool training = false;          ///< forward and backward
  vector_view<const expert_work> experts{};
};

/// Over how many experts the rows of a batch spread: n² / Σ r_e² for r_e rows on expert e, n in all (the inverse
/// Simpson index). As many as there are where all have the same rows, 1 where one has them all, 0 without rows.
[[nodiscard]] inline double effective_experts(const dispatch_load& load) noexcept {
  double rows = 0, squares = 0;
  for (const expert_work& e : load.experts) {
    const auto own = static_cast<double>(e.rows);
    rows += own;
    squares += own * own;
  }
  return squares == 0 ? 0 : rows * rows / squares;
}

/// Predicted seconds, in parts.
struct predicted_time {
  double weights = 0; ///< bytes of weights, and of their gradients
  double flops = 0;
  double hidden = 0; ///< what of these two runs beside the other
  double rows = 0;   ///< bytes of rows that are gathered, permuted and combined
  double tasks = 0;  ///< the plan, and handing out work
  double waits = 0;

  [[nodiscard]] double total() const noexcept { return weights + flops - hidden + rows + tasks + waits; }
};

/// The model: r_e rows on expert e, n entries, T tokens, N experts.
///   weights  Σ_{r_e ≠ 0} bytes_e · (1 / first_read + (passes_e − 1) / again); passes_e = r_e for per_token, ⌈r_e / 64⌉
///            for blocked, 1 else; again = read_by_token for per_token, next_read else. first_read is next_read where
///            the bytes are at most cache_bytes. 4 times that in training: weights are read twice, gradients read and
///            written; scattered_read times for scattered, which reads the last matrices of all experts in turn, panel
///            by panel
///   flops    Σ (r_e − passes_e) · flops_e / flops (the first row of a pass is in `weights`); 3 times that in training
///   hidden   (1 − not_hidden) of the shorter one of these two
///   rows     copies · d_model bytes / row_copy; copies = 4n + T for sorted and blocked, 6n for looped,
///            scatter_copies · n + T for scattered, 2n + T for per_token, N T + 3n for dense; 3 times that in training;
///            scattered n · scattered_row more, in inference
///   waits    parallel phases: those of the experts, and one each for gather and combine of more than 64 rows;
///            looped and dense, which take experts one after the other, loop_seconds for a phase of each
[[nodiscard]] inline predicted_time predict(strategy s, const dispatch_load& load, const machine_limits& machine) {
  const bool each_token = s == strategy::per_token && !load.training; // trains as sorted
  const auto n = static_cast<double>(load.entries), tokens = static_cast<double>(load.tokens);
  double used = 0, first = 0, again = 0, flops = 0, work = 0;
  for (const expert_work& e : load.experts) {
    const std::size_t rows = s == strategy::dense ? load.tokens : e.rows;
    if (rows == 0 || e.flops_per_row == 0)
      continue;
    const std::size_t passes = each_token ? rows : s == strategy::blocked ? blocks_of(rows, automatic_block) : 1;
    ++used;
    first += e.bytes;
    again += e.bytes * static_cast<double>(passes - 1);
    flops += e.flops_per_row * static_cast<double>(rows - passes);
    work += e.flops_per_row * static_cast<double>(rows);
  }
  const auto phases = static_cast<double>(load.phases) * (load.training ? 2 : 1);
  const bool loops = s == strategy::looped || s == strategy::dense;
  double copies = 4 * n + tokens, own_phases = load.entries > 64 ? 2 : 0; // of gather and combine
  if (each_token)
    copies = 2 * n + tokens, own_phases = load.tokens > 64 ? 1 : 0;
  else if (s == strategy::scattered)
    copies = static_cast<double>(load.scatter_copies) * n + tokens, own_phases = load.tokens > 64 ? 1 : 0;
  else if (s == strategy::looped)
    copies = 6 * n, own_phases = load.entries > 64 ? 2 * used : 0;
  else if (s == strategy::dense)
    copies = used * tokens + 3 * n, own_phases = 0;
  const double all_phases = phases * (loops ? used : 1) + own_phases;
  // Pieces are not smaller than 2^17 multiply-adds, and not many more than 64 for a phase.
  const double pieces = std::clamp(work / 2 / phases / (1U << 17U), used, 64 + used);

  predicted_time result;
  const double first_read = first <= machine.cache_bytes ? machine.next_read : machine.first_read;
  result.weights = first / first_read + again / (each_token ? machine.read_by_token : machine.next_read);
  if (load.training)
    result.weights *= 4;
  if (s == strategy::scattered && used > 1)
    result.weights *= machine.scattered_read;
  result.flops = flops / machine.flops * (load.training ? 3 : 1);
  result.hidden = (1 - machine.not_hidden) * std::min(result.weights, result.flops);
  result.rows = copies * load.row_bytes / machine.row_copy * (load.training ? 3 : 1);
  result.tasks = all_phases * pieces / std::max(1.0, loops ? used : 1.0) * machine.task_seconds;
  if (!each_token && s != strategy::dense)
    result.tasks += (n + static_cast<double>(load.experts.size())) * machine.plan_seconds;
  result.waits = machine.threads > 1 ? all_phases * machine.wait_seconds : 0;
  if (s == strategy::scattered && !load.training)
    result.rows = std::max(0.0, result.rows + n * machine.scattered_row);
  if (loops)
    result.waits += phases * used * machine.loop_seconds;
  return result;
}

/// The one of the shortest predicted time, but `sorted` where that is not 1 % shorter: what is predicted is not as
/// sure. Never dense.
[[nodiscard]] inline strategy quickest(const dispatch_load& load, const machine_limits& machine) {
  strategy best = strategy::sorted;
  double least = predict(best, load, machine).total() / 1.01;
  for (const strategy s : {strategy::per_token, strategy::scattered, strategy::blocked, strategy::looped})
    if (const double time = predict(s, load, machine).total(); time < least) {
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
  load.scatter_copies = experts.scatter_copies(ctx);
  load.training = training;
  load.experts = work;
  return load;
}

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
