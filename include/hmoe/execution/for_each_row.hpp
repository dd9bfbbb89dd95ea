// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/blocks.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/probe.hpp>

#include <concepts>
#include <cstddef>

namespace hmoe {

namespace probes {

/// Tells the probe of task i, `step` of `count` rows (the last one fewer).
template <class Row> struct rows_told {
  Row each;
  std::size_t step, count;

  template <execution_context Context>
  void operator()(const Context& ctx, std::size_t i, std::size_t worker, watch<Context>& watched) const {
    const std::size_t left = count - i * step;
    watched.begin(ctx, each.times(left < step ? left : step, worker));
  }
};

/// Runs tasks as ctx.executor().for_each does. told(ctx, task, worker, watched): begins the
/// stage of a task, where there is a probe.
template <execution_context Context, class Task, class Told>
void for_each_task(const Context& ctx, std::size_t count, const Task& task, [[maybe_unused]] const Told& told) {
  if constexpr (observed<Context>)
    ctx.executor().for_each(count, [&](std::size_t i, std::size_t worker) {
      watch<Context> watched;
      told(ctx, i, worker, watched);
      task(i, worker);
    });
  else
    ctx.executor().for_each(count, task);
}

} // namespace probes

/// Rows that one task works on. Work is divided by its size and never by the number of workers.
inline constexpr std::size_t rows_per_task = 64;

/// f(first, count) for each block of rows_per_task rows (or columns), each a task of its own. `each`: the event of a
/// row, for probes.
template <execution_context Context, class F>
void for_each_row_block(const Context& ctx, std::size_t count, F&& f,
                        probes::row_of<Context> each = probes::other_row<Context>()) {
  const auto run = [&](std::size_t task, std::size_t) {
    const block_range block = block_at(task, rows_per_task, count);
    f(block.first, block.count);
  };
  probes::for_each_task(ctx, blocks_of(count, rows_per_task), run,
                        probes::rows_told<probes::row_of<Context>>{each, rows_per_task, count});
}

/// f(row), or f(row, worker), for each row below count, in tasks of rows_per_task. `each`: the event of a row.
template <execution_context Context, class F>
void for_each_row(const Context& ctx, std::size_t count, F&& f,
                  probes::row_of<Context> each = probes::other_row<Context>()) {
  const auto run = [&](std::size_t task, std::size_t worker) {
    const block_range block = block_at(task, rows_per_task, count);
    for (std::size_t r = block.first; r < block.first + block.count; ++r)
      if constexpr (std::invocable<F, std::size_t, std::size_t>)
        f(r, worker);
      else
        f(r);
  };
  probes::for_each_task(ctx, blocks_of(count, rows_per_task), run,
                        probes::rows_told<probes::row_of<Context>>{each, rows_per_task, count});
}

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
