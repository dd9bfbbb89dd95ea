// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/blocks.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/probe.hpp>

#include <concepts>
#include <cstddef>

namespace hmoe {

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
