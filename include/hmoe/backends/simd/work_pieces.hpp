// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/context.hpp>

#include <algorithm>
#include <cstddef>

namespace hmoe::backends::simd_detail {

/// Something to do for a chunk of rows, in units of equal cost: `kind` is the caller's, cost about multiply-adds.
struct divisible_work {
  std::size_t chunk, kind, units;
  double unit_cost;
};
/// Units [first, first + count) of it.
struct work_piece {
  std::size_t chunk, kind, first, count;
  double cost;
};

/// How work is cut.
struct piece_size {
  double pieces;     ///< that all work together is cut into, where there are units enough
  double least_work; ///< of a piece: below, handing it out costs more than it saves
};
inline constexpr piece_size default_piece_size{64, 1U << 17U};

/// f(piece) for all of the work, in pieces of about equal cost, the costliest first: one huge expert is shared among
/// all workers, many tiny ones fill the gaps. Cut by size only, so results cannot depend on who works.
template <execution_context Context, class F>
void run_in_pieces(const Context& ctx, vector_view<const divisible_work> work, F&& f,
                   const piece_size& size = default_piece_size) {
  const typename Context::workspace_scope scope(ctx.workspace());
  double total = 0;
  for (const divisible_work& w : work)
    total += static_cast<double>(w.units) * w.unit_cost;
  const double target = std::max(total / size.pieces, size.least_work);
  const auto units_per_piece = [&](const divisible_work& w) {
    return w.unit_cost * static_cast<double>(w.units) <= target
               ? std::max<std::size_t>(1, w.units)
               : std::max<std::size_t>(1, static_cast<std::size_t>(target / w.unit_cost));
  };
  std::size_t count = 0;
  for (const divisible_work& w : work)
    count += (w.units + units_per_piece(w) - 1) / units_per_piece(w);
  buffer<work_piece> pieces(count, &ctx.workspace());
  std::size_t next = 0;
  for (const divisible_work& w : work)
    for (std::size_t first = 0, step = units_per_piece(w); first < w.units; first += step) {
      const std::size_t units = std::min(step, w.units - first);
      pieces[next++] = {w.chunk, w.kind, first, units, static_cast<double>(units) * w.unit_cost};
    }
  std::sort(pieces.begin(), pieces.end(), [](const work_piece& a, const work_piece& b) {
    if (a.cost != b.cost)
      return a.cost > b.cost;
    return a.chunk != b.chunk ? a.chunk < b.chunk : a.kind != b.kind ? a.kind < b.kind : a.first < b.first;
  });
  ctx.executor().for_each(count, [&](std::size_t i, std::size_t) { f(pieces[i]); });
}

} // namespace hmoe::backends::simd_detail
