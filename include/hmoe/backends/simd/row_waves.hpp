// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/dispatch/grouped.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>

namespace hmoe::backends::simd_detail {

/// Rows [first, first + rows) of a batch, and where its part of the memory begins.
struct row_chunk {
  std::size_t batch, first, rows, memory;
};

/// Rows of a chunk at most: beyond, reading the weights once more costs nothing.
inline constexpr std::size_t most_chunk_rows = 1024;

/// Cuts the batches of a bank into chunks and takes as many at a time as dispatch::bank_memory has room for, of each
/// expert one: f(chunks, memory), in ascending order. values(batch, rows): how many values of T a chunk needs.
template <class T, class Context, class Bank, class Batch, class Values, class F>
void for_each_wave(const Context& ctx, const Bank& bank, std::size_t first_expert, vector_view<const Batch> batches,
                   const Values& values, const F& f) {
  using limits = dispatch::bank_memory;
  const typename Context::workspace_scope scope(ctx.workspace());
  const auto parts_of = [&](std::size_t b) -> std::size_t {
    const std::size_t e = batches[b].expert, rows = batches[b].x.rows();
    if (e < first_expert || e - first_expert >= bank.size() || rows == 0)
      return 0;
    const std::size_t fit = limits::budget / limits::row_bytes(bank, e - first_expert);
    const std::size_t most = std::clamp(fit, limits::least_rows, most_chunk_rows);
    return (rows + most - 1) / most;
  };
  std::size_t count = 0;
  for (std::size_t b = 0; b < batches.size(); ++b)
    count += parts_of(b);
  buffer<row_chunk> chunks(count, &ctx.workspace());
  std::size_t next = 0;
  for (std::size_t b = 0; b < batches.size(); ++b)
    for (std::size_t i = 0, parts = parts_of(b), rows = batches[b].x.rows(); i < parts; ++i)
      chunks[next++] = {b, i * rows / parts, (i + 1) * rows / parts - i * rows / parts, 0};

  for (std::size_t first = 0; first < count;) {
    std::size_t last = first, size = 0;
    for (; last < count; ++last) {
      const std::size_t more = values(chunks[last].batch, chunks[last].rows);
      if (last != first && ((size + more) * sizeof(T) > limits::budget ||
                            batches[chunks[last].batch].expert == batches[chunks[last - 1].batch].expert))
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
