// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/chunks.hpp>
#include <hmoe/backends/simd/pieces.hpp>
#include <hmoe/backends/simd/work_sizes.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/execution/context.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace hmoe::backends::simd_detail {

/// The most that a number of things of any experts can need: those of the experts that need most for one, as many as
/// each of them may have.
class most_needed {
public:
  struct of_expert {
    std::size_t each, most; ///< what a thing needs; how many there may be
  };
  explicit most_needed(std::vector<of_expert> experts) : experts_(std::move(experts)) {
    std::sort(experts_.begin(), experts_.end(), [](const of_expert& a, const of_expert& b) { return a.each > b.each; });
    counts_.push_back(0);
    sums_.push_back(0);
    for (const of_expert& e : experts_) {
      counts_.push_back(counts_.back() + e.most);
      sums_.push_back(sums_.back() + e.most * e.each);
    }
  }
  /// Of `count` things.
  [[nodiscard]] std::size_t operator()(std::size_t count) const {
    if (count >= counts_.back())
      return sums_.back();
    const auto after = std::upper_bound(counts_.begin(), counts_.end(), count);
    const auto e = static_cast<std::size_t>(after - counts_.begin()) - 1;
    return sums_[e] + (count - counts_[e]) * experts_[e].each;
  }

private:
  std::vector<of_expert> experts_;
  std::vector<std::size_t> counts_, sums_; ///< of the experts before
};

/// Takes from a dry workspace what for_each_batch and the phases of its batches take at most for rows within the
/// limits. values(e): the chunk_values of expert e, all of them with blocks of the same height; kinds: kinds of work in
/// a phase.
/// The more experts have rows, the longer are the lists, and the fewer rows are left for the widest experts. So each
/// number of experts with rows is laid out: n of them and r rows beside the first of each have at most n + ⌊r / m⌋
/// chunks, where the shortest full chunk has m rows, and n + ⌊r / b⌋ blocks of b rows, and one more for each chunk
/// beside the first of an expert. Where the entries of the list are chunks of m rows, each has ⌈m / b⌉ blocks, and no
/// more.
template <class Value, class T, execution_context Context, class Values>
void lay_out_batches(const Context& dry, std::size_t experts, const Values& values, const row_limits& limits,
                     same_expert several, std::size_t kinds, const work_sizes& sizes) {
  const std::size_t each = std::min(limits.each, limits.total);
  if (each == 0 || experts == 0)
    return;
  std::vector<most_needed::of_expert> first_rows, first_blocks, rows, blocks;
  std::size_t shortest = sizes.most_rows;
  std::size_t batch = sizes.batch_bytes / sizeof(Value);
  bool entries_are_chunks = limits.block != 0;
  for (std::size_t e = 0; e < experts; ++e) {
    const std::size_t longest = simd_detail::most_chunk_rows<Value>(values(e), sizes);
    shortest = std::min(shortest, limits.rows_of_piece(longest));
    entries_are_chunks = entries_are_chunks && limits.block <= longest;
  }
  const std::size_t block = values(0).block;
  const auto blocks_behind = [&](std::size_t further) { // the first ones of the experts that have these rows
    if (entries_are_chunks)
      return further / limits.block * blocks_of(limits.block, block) + further % limits.block / block;
    return further / block + (several == same_expert::in_turn ? 0 : further / shortest);
  };
  for (std::size_t e = 0; e < experts; ++e) {
    const chunk_values of_chunk = values(e);
    const std::size_t longest = simd_detail::most_chunk_rows<Value>(of_chunk, sizes);
    const std::size_t further = (several == same_expert::in_turn ? std::min(each, longest) : each) - 1;
    first_rows.push_back({of_chunk.per_row, 1});
    first_blocks.push_back({of_chunk.per_block, 1});
    rows.push_back({of_chunk.per_row, further});
    blocks.push_back({of_chunk.per_block, blocks_behind(further)});
    batch = std::max(batch, of_chunk.of(std::min(each, sizes.least_rows))); // a chunk alone may have more
  }
  const most_needed first_rows_need(std::move(first_rows)), first_blocks_need(std::move(first_blocks)),
      rows_need(std::move(rows)), blocks_need(std::move(blocks));
  for (std::size_t used = 1; used <= std::min(experts, limits.total); ++used) {
    const std::size_t further = std::min(limits.total, used * each) - used;
    const std::size_t more = each > shortest ? further / shortest : 0;
    const std::size_t need =
        first_rows_need(used) + first_blocks_need(used) + rows_need(further) + blocks_need(blocks_behind(further));
    simd_detail::with_chunks<T>(dry, used + more, [&](auto) {
      simd_detail::with_batch_memory<Value>(dry, std::min(need, batch), [&](auto) {
        const std::size_t in_batch = used + (several == same_expert::in_turn ? 0 : more);
        simd_detail::with_pieces(dry, simd_detail::most_pieces(kinds * in_batch, sizes), [](auto) {});
      });
    });
  }
}

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
