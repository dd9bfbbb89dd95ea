// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/work_sizes.hpp>
#include <hmoe/core/blocks.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/probe.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <tuple>

namespace hmoe::backends::simd_detail {

/// Work on a chunk, in units of equal cost (about multiply-adds) that a worker can take alone.
struct divisible_work {
  std::size_t units;
  double unit_cost;
};
/// Units [first, first + count) of one kind of work on a chunk.
struct work_piece {
  std::size_t chunk, kind, first, count;
  double cost;

  /// The rows, columns or panels of the piece, where a unit has `size` of `all` of them (the last one fewer).
  [[nodiscard]] constexpr block_range of(std::size_t size, std::size_t all) const noexcept {
    return {first * size, std::min(count * size, all - first * size)};
  }
};

/// Pieces at most, where that many chunks and kinds of work are cut: each has one that may be smaller than it should
/// be, and no other is smaller than half of it.
[[nodiscard]] constexpr std::size_t most_pieces(std::size_t chunks_and_kinds, const work_sizes& sizes) noexcept {
  return chunks_and_kinds + 2 * sizes.pieces;
}

/// The costliest first, those of the same cost as they lie in memory.
inline void sort_by_cost(vector_view<work_piece> pieces) {
  std::sort(pieces.begin(), pieces.end(), [](const work_piece& a, const work_piece& b) {
    if (a.cost != b.cost)
      return a.cost > b.cost;
    return a.chunk != b.chunk ? a.chunk < b.chunk : a.kind != b.kind ? a.kind < b.kind : a.first < b.first;
  });
}

/// f(pieces) with room for `count` of them.
template <execution_context Context, class F> void with_pieces(const Context& ctx, std::size_t count, const F& f) {
  const typename Context::workspace_scope scope(ctx.workspace());
  buffer<work_piece> pieces(count, &ctx.workspace());
  f(pieces.view());
}

/// All work of a phase. Behind a pointer, so that it is cut by code that is compiled once.
struct phase_work {
  const void* object;
  divisible_work (*call)(const void* object, std::size_t chunk, std::size_t kind);
  std::size_t chunks, kinds;

  [[nodiscard]] divisible_work operator()(std::size_t chunk, std::size_t kind) const {
    return call(object, chunk, kind);
  }
  template <class F> void for_each(const F& f) const {
    for (std::size_t c = 0; c < chunks; ++c)
      for (std::size_t k = 0; k < kinds; ++k)
        f((*this)(c, k), c, k);
  }
};
/// How many take part in a phase.
enum class workers { all, one };

[[nodiscard]] inline double total_cost(const phase_work& work) {
  double total = 0;
  work.for_each(
      [&](const divisible_work& w, std::size_t, std::size_t) { total += static_cast<double>(w.units) * w.unit_cost; });
  return total;
}
[[nodiscard]] inline std::size_t units_per_piece(const divisible_work& w, double target) noexcept {
  return w.unit_cost * static_cast<double>(w.units) <= target
             ? std::max<std::size_t>(1, w.units)
             : std::max<std::size_t>(1, static_cast<std::size_t>(target / w.unit_cost));
}
[[nodiscard]] inline std::size_t count_pieces(const phase_work& work, double target) {
  std::size_t count = 0;
  work.for_each([&](const divisible_work& w, std::size_t, std::size_t) {
    count += blocks_of(w.units, units_per_piece(w, target));
  });
  return count;
}
inline void cut_into_pieces(const phase_work& work, double target, vector_view<work_piece> pieces) {
  std::size_t next = 0;
  work.for_each([&](const divisible_work& w, std::size_t c, std::size_t k) {
    for (std::size_t first = 0, step = units_per_piece(w, target); first < w.units; first += step) {
      const std::size_t units = std::min(step, w.units - first);
      pieces[next++] = {c, k, first, units, static_cast<double>(units) * w.unit_cost};
    }
  });
}

/// For phases whose pieces tell probes themselves.
struct pieces_tell {};

/// What is done with a piece. Behind a pointer, so that phases of all kinds share the code that cuts and hands out.
template <execution_context Context> struct piece_task {
  const void* object;
  void (*call)(const void* object, const Context& ctx, const work_piece& piece, std::size_t worker);
};

/// Cuts the work into pieces and runs the task for each of them.
template <execution_context Context>
void run_pieces(const Context& ctx, const phase_work& work, const work_sizes& sizes, workers who,
                const piece_task<Context>& task) {
  const double total = total_cost(work), least = static_cast<double>(sizes.least_work);
  const bool alone = who == workers::one || total <= least;
  const double target = alone ? total : std::max(total / static_cast<double>(sizes.pieces), least);
  const std::size_t count = count_pieces(work, target);
  simd_detail::with_pieces(ctx, count, [&](vector_view<work_piece> pieces) {
    cut_into_pieces(work, target, pieces);
    if (!alone && ctx.executor().concurrency() > 1)
      simd_detail::sort_by_cost(pieces);
    const std::size_t each = alone ? std::max<std::size_t>(1, count) : 1; // pieces of a task of the executor
    ctx.executor().for_each(blocks_of(count, each), [&](std::size_t i, std::size_t worker) {
      for (const work_piece& piece : pieces.subview(i * each, each))
        task.call(task.object, ctx, piece, worker);
    });
  });
}

/// Calls f(chunk, piece, worker) as a piece_task does, and tells a probe of it. (No lambda: what one captures would
/// depend on whether there is a probe.)
template <execution_context Context, class Chunk, class F, class Told> struct chunk_task {
  vector_view<const Chunk> chunks;
  const F& f;
  const Told& told;

  static void call(const void* object, const Context& ctx, const work_piece& piece, std::size_t worker) {
    const auto& task = *static_cast<const chunk_task*>(object);
    [[maybe_unused]] probes::watch<Context> watched;
    if constexpr (probes::observed<Context> && !std::same_as<Told, pieces_tell>)
      watched.begin(ctx, task.told(task.chunks[piece.chunk], piece).by(worker));
    task.f(task.chunks[piece.chunk], piece, worker);
  }
};

/// One phase of a pass: f(chunk, piece, worker) for all of the work that work(chunk), an array of divisible_work, says;
/// piece.kind is the index in that array. Pieces have about equal cost and the costliest come first: one huge expert is
/// shared among all workers, many tiny ones fill the gaps. (A single worker takes them as they lie in memory.)
/// told(chunk, piece): the event of a piece, for probes. `who`: for one worker all pieces, of whole chunks, are one
/// task; so is work that is less than a piece should be.
template <execution_context Context, class Chunk, class Work, class F, class Told = pieces_tell>
void run_phase(const Context& ctx, vector_view<const Chunk> chunks, const work_sizes& sizes, const Work& work,
               const F& f, const Told& told = {}, workers who = workers::all) {
  const auto of_chunk = [&](std::size_t c) { return work(chunks[c]); };
  const phase_work all{&of_chunk,
                       [](const void* object, std::size_t chunk, std::size_t kind) {
                         return (*static_cast<decltype(&of_chunk)>(object))(chunk)[kind];
                       },
                       chunks.size(), std::tuple_size_v<decltype(work(chunks[0]))>};
  const chunk_task<Context, Chunk, F, Told> task{chunks, f, told};
  simd_detail::run_pieces<Context>(ctx, all, sizes, who, {&task, task.call});
}

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
