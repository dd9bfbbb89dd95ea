// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/blocks.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/bank_memory.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>

namespace hmoe::backends::simd_detail {

/// Rows [first, first + rows) of entry `work` of a list of expert_rows, and where its part of the memory begins.
struct row_chunk {
  std::size_t work, first, rows, memory;
};

/// Rows of a chunk at most: beyond, reading the weights once more costs nothing.
inline constexpr std::size_t most_chunk_rows = 1024;

/// Cuts the rows of a bank into chunks and calls f(wave, memory) for successive waves: at most one chunk per expert, as
/// many chunks as the budget of experts::bank_memory holds, in ascending order. values(i, rows): how many values of T
/// a chunk of that many rows of the i-th entry of `work` needs.
template <class T, execution_context Context, class Bank, class Values, class F>
void for_each_wave(const Context& ctx, const Bank& bank, vector_view<const expert_rows<T>> work, const Values& values,
                   const F& f) {
  using limits = experts::bank_memory;
  const typename Context::workspace_scope scope(ctx.workspace());
  const auto parts_of = [&](std::size_t i) {
    const std::size_t fit = limits::budget / limits::row_bytes(bank, work[i].expert);
    return blocks_of(work[i].count, std::clamp(fit, limits::least_rows, most_chunk_rows));
  };
  std::size_t count = 0;
  for (std::size_t i = 0; i < work.size(); ++i)
    count += parts_of(i);
  buffer<row_chunk> chunks(count, &ctx.workspace());
  std::size_t next = 0;
  for (std::size_t i = 0; i < work.size(); ++i)
    for (std::size_t p = 0, parts = parts_of(i); p < parts; ++p) {
      const block_range part = even_part(p, parts, work[i].count);
      chunks[next++] = {i, part.first, part.count, 0};
    }

  for (std::size_t first = 0; first < count;) {
    std::size_t last = first, size = 0;
    for (; last < count; ++last) {
      const std::size_t more = values(chunks[last].work, chunks[last].rows);
      if (last != first && ((size + more) * sizeof(T) > limits::budget || chunks[last].work == chunks[last - 1].work))
        break;
      chunks[last].memory = size;
      size += more;
    }
    const typename Context::workspace_scope wave(ctx.workspace());
    buffer<T> memory(size, &ctx.workspace());
    f(std::as_const(chunks).view().subview(first, last - first), memory.data());
    first = last;
  }
}

} // namespace hmoe::backends::simd_detail
