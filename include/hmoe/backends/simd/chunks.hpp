// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/work_sizes.hpp>
#include <hmoe/core/blocks.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/context.hpp>

#include <algorithm>
#include <cstddef>

namespace hmoe::backends::simd_detail {

/// Rows of one expert that are in work together, where their part of the batch's memory begins, and whether they are
/// the first of an entry of the list.
template <class T> struct chunk {
  expert_rows<T> rows;
  std::size_t memory;
  bool first;
};

/// What a chunk has in the memory of its batch: values for each of its rows, and behind them values for each of its
/// blocks of rows, the last of which may be shorter. None at all: the rows need not be computed.
struct chunk_values {
  std::size_t per_row = 0, per_block = 0, block = 1;

  [[nodiscard]] constexpr std::size_t of(std::size_t rows) const noexcept {
    return rows * per_row + blocks_of(rows, block) * per_block;
  }
};

/// Rows of a chunk at most: whole blocks that fit into the memory of a batch.
template <class Value>
[[nodiscard]] constexpr std::size_t most_chunk_rows(const chunk_values& values, const work_sizes& sizes) noexcept {
  const std::size_t fit = sizes.batch_bytes / sizeof(Value) / values.of(values.block) * values.block;
  return std::clamp(fit, sizes.least_rows, sizes.most_rows);
}

/// Whether several chunks of an expert may be in a batch, or have to take turns.
enum class same_expert { together, in_turn };

/// f(chunks) with room for `count` of them.
template <class T, execution_context Context, class F>
void with_chunks(const Context& ctx, std::size_t count, const F& f) {
  const typename Context::workspace_scope scope(ctx.workspace());
  buffer<chunk<T>> chunks(count, &ctx.workspace());
  f(chunks.view());
}
/// f(memory) with `count` values of memory for a batch.
template <class Value, execution_context Context, class F>
void with_batch_memory(const Context& ctx, std::size_t count, const F& f) {
  const typename Context::workspace_scope scope(ctx.workspace());
  buffer<Value> memory(count, &ctx.workspace());
  f(memory.data());
}

/// Cuts the rows of a bank into chunks and calls f(chunks, memory) for successive batches of them, in ascending order:
/// as many chunks as sizes.batch_bytes hold. values(r): the chunk_values of the rows r.
template <class Value, execution_context Context, class T, class Values, class F>
void for_each_batch(const Context& ctx, vector_view<const expert_rows<T>> all_rows, const Values& values,
                    same_expert several, const work_sizes& sizes, const F& f) {
  const auto parts_of = [&](const expert_rows<T>& r) -> std::size_t {
    const chunk_values each = values(r);
    return each.of(1) == 0 ? 0 : blocks_of(r.count, simd_detail::most_chunk_rows<Value>(each, sizes));
  };
  std::size_t count = 0;
  for (const expert_rows<T>& r : all_rows)
    count += parts_of(r);
  simd_detail::with_chunks<T>(ctx, count, [&](vector_view<chunk<T>> chunks) {
    std::size_t next = 0;
    for (const expert_rows<T>& r : all_rows)
      for (std::size_t p = 0, parts = parts_of(r); p < parts; ++p) {
        const block_range part = even_part(p, parts, r.count);
        chunks[next++] = {r.part(part.first, part.count), 0, p == 0};
      }
    for (std::size_t first = 0, last = 0; first < count; first = last) {
      std::size_t size = 0;
      for (; last < count; ++last) {
        const expert_rows<T>& rows = chunks[last].rows;
        const std::size_t more = values(rows).of(rows.count);
        const bool waits = several == same_expert::in_turn && last != 0 && chunks[last - 1].rows.expert == rows.expert;
        if (last != first && (waits || (size + more) * sizeof(Value) > sizes.batch_bytes))
          break;
        chunks[last].memory = size;
        size += more;
      }
      simd_detail::with_batch_memory<Value>(ctx, size, [&](Value* memory) {
        f(vector_view<const chunk<T>>(chunks.subview(first, last - first)), memory);
      });
    }
  });
}

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
