// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/batch_layout.hpp>
#include <hmoe/backends/simd/chunks.hpp>
#include <hmoe/backends/simd/packed_kernels.hpp>
#include <hmoe/backends/simd/pieces.hpp>
#include <hmoe/backends/simd/work_sizes.hpp>
#include <hmoe/core/blocks.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/probe.hpp>

#include <algorithm>
#include <array>
#include <cstddef>

namespace hmoe::backends::simd_detail {

/// The forward pass of all experts of a packed bank, in three phases, each shared among the workers:
///   1  rows    x ─ gather, weight, encode ─▶ rows
///   2  hidden  rows · in panels ─ bias, gate, encode ─▶ hidden      piece: some strips of a chunk
///      (formats that encode whole rows: hidden values ─ encode ─▶ hidden, a phase of its own)
///   3  output  hidden · out panels ─ bias, weight, add ─▶ y         piece: some panels of a chunk
/// Where results are added to tokens, a piece of phase 3 is some panels of all chunks, in order of experts: no two
/// workers write the same value.
/// How the work is cut changes no bit: each sum is a chain of its own.
template <class Bank> class packed_forward {
  using kernels = packed_kernels<Bank>;
  using row_value = typename kernels::row_value;
  using chunks_view = vector_view<const chunk<float>>;

public:
  template <execution_context Context>
  static void run(const Context& ctx, const Bank& bank, vector_view<const expert_rows<float>> rows,
                  const work_sizes& sizes = packed_work_sizes) {
    const auto values = [&](const expert_rows<float>& r) {
      const bool adds_nothing = bank.width(r.expert) == 0 && !bank.has_biases() && r.scatters();
      return adds_nothing ? chunk_values{} : kernels::values_of(bank, r.expert);
    };
    simd_detail::for_each_batch<row_value>(ctx, rows, values, same_expert::together, sizes,
                                           [&](chunks_view chunks, row_value* memory) {
                                             const workers who = workers_for(bank, chunks, sizes);
                                             encode_rows(ctx, bank, chunks, memory, sizes, who);
                                             compute_hidden(ctx, bank, chunks, memory, sizes, who);
                                             if constexpr (kernels::encodes_rows)
                                               encode_hidden(ctx, bank, chunks, memory, sizes, who);
                                             compute_output(ctx, bank, chunks, memory, sizes, who);
                                           });
  }

  /// Takes from a dry workspace what `run` takes at most for rows within the limits.
  template <execution_context Context>
  static void lay_out(const Context& dry, const Bank& bank, const row_limits& limits,
                      const work_sizes& sizes = packed_work_sizes) {
    simd_detail::lay_out_batches<row_value, float>(
        dry, bank.size(), [&](std::size_t e) { return kernels::values_of(bank, e); }, limits, same_expert::together,
        /*kinds=*/1, sizes);
  }

private:
  static constexpr std::size_t rows_together = 32; ///< rows that are encoded by a worker at least
  static constexpr std::size_t encoding_cost = 16; ///< multiply-adds that take as long as encoding a value

  static workers workers_for(const Bank& bank, chunks_view chunks, const work_sizes& sizes) noexcept {
    std::size_t bytes = 0;
    for (const chunk<float>& c : chunks)
      bytes += bank.bytes(c.rows.expert) * (4 + c.rows.count) / 4;
    return bytes <= sizes.least_shared ? workers::one : workers::all;
  }
  static std::array<divisible_work, 1> encoding_of(const chunk<float>& c, std::size_t values) {
    return {divisible_work{blocks_of(c.rows.count, rows_together),
                           static_cast<double>(std::min(rows_together, c.rows.count) * values * encoding_cost)}};
  }
  template <execution_context Context>
  static void encode_hidden(const Context& ctx, const Bank& bank, chunks_view chunks, row_value* memory,
                            const work_sizes& sizes, workers who) {
    simd_detail::run_phase(
        ctx, chunks, sizes, [&](const chunk<float>& c) { return encoding_of(c, bank.width(c.rows.expert)); },
        [&](const chunk<float>& c, const work_piece& w, std::size_t) {
          kernels::encode_hidden(bank, c, w.of(rows_together, c.rows.count), memory);
        },
        [&](const chunk<float>& c, const work_piece& w) {
          return kernels::encoding_hidden(bank, c, w.of(rows_together, c.rows.count));
        },
        who);
  }
  template <execution_context Context>
  static void encode_rows(const Context& ctx, const Bank& bank, chunks_view chunks, row_value* memory,
                          const work_sizes& sizes, workers who) {
    simd_detail::run_phase(
        ctx, chunks, sizes, [&](const chunk<float>& c) { return encoding_of(c, bank.d_model()); },
        [&](const chunk<float>& c, const work_piece& w, std::size_t) {
          kernels::encode_rows(bank, c, w.of(rows_together, c.rows.count), memory);
        },
        [&](const chunk<float>& c, const work_piece& w) {
          return kernels::encoding(bank, c, w.of(rows_together, c.rows.count));
        },
        who);
  }

  /// A strip costs its multiply-adds, and for reading its weights as much as a block of rows.
  template <execution_context Context>
  static void compute_hidden(const Context& ctx, const Bank& bank, chunks_view chunks, row_value* memory,
                             const work_sizes& sizes, workers who) {
    const auto strips_of = [&](const chunk<float>& c) {
      return blocks_of(bank.width(c.rows.expert), kernels::strip_width);
    };
    simd_detail::run_phase(
        ctx, chunks, sizes,
        [&](const chunk<float>& c) {
          const std::size_t together = kernels::panels_together(c.rows.count);
          const std::size_t columns = together * kernels::panels_per_strip * kernels::panel_columns;
          return std::array{
              divisible_work{blocks_of(strips_of(c), together),
                             static_cast<double>((c.rows.count + kernels::block) * bank.d_model() * columns)}};
        },
        [&](const chunk<float>& c, const work_piece& w, std::size_t) {
          kernels::compute_hidden(bank, c, w.of(kernels::panels_together(c.rows.count), strips_of(c)), memory);
        },
        [&](const chunk<float>& c, const work_piece& w) {
          return kernels::hidden(bank, c, w.of(kernels::panels_together(c.rows.count), strips_of(c)));
        },
        who);
  }

  template <execution_context Context>
  static void compute_output(const Context& ctx, const Bank& bank, chunks_view chunks, row_value* memory,
                             const work_sizes& sizes, workers who) {
    // f(first panel, its end) for the panels of a piece.
    const std::size_t panels = bank.weights().out_panels();
    const auto for_each_unit = [&](const work_piece& w, std::size_t together, const auto& f) {
      const block_range some = w.of(together, panels);
      for (std::size_t p = some.first; p < some.first + some.count; p += together)
        f(p, std::min(p + together, panels));
    };
    const auto cost = [&](const chunk<float>& c, std::size_t together) {
      return static_cast<double>((c.rows.count + kernels::block) * bank.width(c.rows.expert) * together *
                                 kernels::panel_columns);
    };
    if (!chunks[0].rows.scatters()) {
      const auto together = [](const chunk<float>& c) { return kernels::panels_together(c.rows.count); };
      simd_detail::run_phase(
          ctx, chunks, sizes,
          [&](const chunk<float>& c) {
            return std::array{divisible_work{blocks_of(panels, together(c)), cost(c, together(c))}};
          },
          [&](const chunk<float>& c, const work_piece& w, std::size_t) {
            for_each_unit(w, together(c), [&](std::size_t first, std::size_t last) {
              kernels::compute_output(bank, c, first, last, c, last, memory);
            });
          },
          [&](const chunk<float>& c, const work_piece& w) {
            return kernels::output(bank, c, w.of(together(c), panels));
          },
          who);
      return;
    }
    // Panels of all chunks together: the fewest that any of them streams side by side.
    std::size_t together = 2;
    double total = 0;
    for (const chunk<float>& c : chunks)
      together = std::min(together, kernels::panels_together(c.rows.count));
    for (const chunk<float>& c : chunks)
      total += cost(c, together);
    // A worker takes chunk after chunk, whose hidden values stay in its cache for all panels of a piece: so few pieces,
    // and one for a single worker.
    const std::size_t concurrency = ctx.executor().concurrency();
    work_sizes few = sizes;
    few.pieces = std::min(sizes.pieces, 4 * concurrency);
    simd_detail::run_phase(
        ctx, chunks.subview(0, 1), few,
        [&](const chunk<float>&) { return std::array{divisible_work{blocks_of(panels, together), total}}; },
        [&](const chunk<float>&, const work_piece& w, [[maybe_unused]] std::size_t worker) {
          const block_range some = w.of(together, panels);
          const std::size_t end = some.first + some.count;
          for (std::size_t c = 0; c < chunks.size(); ++c)
            for_each_unit(w, together, [&](std::size_t first, std::size_t last) {
              [[maybe_unused]] probes::watch<Context> watched;
              if constexpr (probes::observed<Context>)
                watched.begin(ctx, kernels::output(bank, chunks[c], {first, last - first}).by(worker));
              const bool goes_on = last < end, turns = !goes_on && c + 1 == chunks.size();
              const chunk<float>& next = chunks[goes_on ? c : turns ? 0 : c + 1];
              kernels::compute_output(bank, chunks[c], first, last, next, goes_on || turns ? last : some.first, memory);
            });
        },
        pieces_tell{}, concurrency == 1 ? workers::one : who);
  }
};

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
