// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/batch_layout.hpp>
#include <hmoe/backends/simd/chunks.hpp>
#include <hmoe/backends/simd/ffn_kind.hpp>
#include <hmoe/backends/simd/ffn_work.hpp>
#include <hmoe/backends/simd/packed_product.hpp>
#include <hmoe/backends/simd/pieces.hpp>
#include <hmoe/backends/simd/work_sizes.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/execution/row_operations.hpp>

#include <algorithm>
#include <array>
#include <cstddef>

namespace hmoe::backends::simd_detail {

/// The forward pass of all feed-forward experts of a bank on weights as they are, in four phases, each shared among the
/// workers:
///   1  x ─ pack ─▶ rows
///   2  rows · W_inᵀ ─ bias, activation ─▶ saved        piece: some hidden values of a chunk
///   3  activated values ─ pack ─▶ rows
///   4  rows · W_outᵀ ─ bias ─▶ y                       piece: some columns of a chunk
/// Rows that scatter are gathered while phase 1 packs them, and a piece of phase 4 is some columns of all chunks, in
/// order of experts: it adds its results to the tokens, and no two workers write the same value.
/// A worker packs the part of a weight matrix that its piece needs, once for all rows of a chunk. Nothing packed
/// outlives the pass, so an optimiser may change weights at any time.
template <class Bank, class Arch> class ffn_forward {
  using T = typename Bank::value_type;
  using kind = ffn_kind<Bank>;
  using work = ffn_work<T, Arch>;
  static constexpr std::size_t lanes = kind::lanes;

public:
  template <execution_context Context>
  static void run(const Context& ctx, const Bank& bank, vector_view<const expert_rows<T>> all_rows,
                  const work_sizes& sizes = plain_work_sizes) {
    simd_detail::for_each_batch<T>(
        ctx, all_rows, [&](const expert_rows<T>& r) { return values_of(bank, r.expert, r.keeps(), has_out(r)); },
        same_expert::together, sizes,
        [&](vector_view<const chunk<T>> chunks, T* memory) { run_phases(ctx, bank, chunks, memory, sizes); });
  }

  /// Takes from a dry workspace what `run` takes at most for rows within the limits.
  template <execution_context Context>
  static void lay_out(const Context& dry, const Bank& bank, const row_limits& limits,
                      const work_sizes& sizes = plain_work_sizes) {
    simd_detail::lay_out_batches<T, T>(
        dry, bank.size(), [&](std::size_t e) { return values_of(bank, e, limits.keeps, limits.scatters); }, limits,
        same_expert::together, /*kinds=*/1, sizes);
  }

private:
  /// Whether outputs have memory of the chunk before they are added to tokens.
  static bool has_out(const expert_rows<T>& r) noexcept { return r.scatters() && r.outputs.data() == nullptr; }
  /// What a chunk has in memory: saved values and outputs, where they are not kept, and behind them packed rows.
  static chunk_values values_of(const Bank& bank, std::size_t e, bool keeps, bool out) noexcept {
    return {(keeps ? 0 : bank.saved_per_row(e)) + (out ? bank.d_model() : 0),
            work::rows_form::size(1, std::max(bank.d_model(), bank.width(e))), tile_for<Arch>.rows};
  }
  /// A chunk and its memory.
  struct part {
    const expert_rows<T>& all;
    std::size_t expert, width, count;
    matrix_view<T> saved, out;
    T* rows;

    part(const Bank& bank, const chunk<T>& c, T* memory)
        : all(c.rows), expert(all.expert), width(bank.width(expert)), count(all.count),
          saved(all.keeps() ? all.saved : matrix_view<T>(memory + c.memory, count, bank.saved_per_row(expert))),
          out(!all.scatters() ? all.y
              : has_out(all)
                  ? matrix_view<T>(memory + c.memory + (all.keeps() ? 0 : saved.size()), count, bank.d_model())
                  : all.outputs),
          rows(memory + c.memory + count * values_of(bank, expert, all.keeps(), has_out(all)).per_row) {}
  };

  template <execution_context Context>
  static void run_phases(const Context& ctx, const Bank& bank, vector_view<const chunk<T>> chunks, T* memory,
                         const work_sizes& sizes) {
    const std::size_t d = bank.d_model();
    using enum probes::stage;
    const auto phase = [&](const auto& work_of, const auto& f, const auto&... told) {
      simd_detail::run_phase(
          ctx, chunks, sizes,
          [&](const chunk<T>& c) { return std::array{work_of(c.rows.count, bank.width(c.rows.expert))}; },
          [&](const chunk<T>& c, const work_piece& w, std::size_t worker) { f(part(bank, c, memory), w, worker); },
          told...);
    };
    constexpr auto forward = probes::direction::forward;
    phase([&](std::size_t rows, std::size_t) { return work::rows_to_pack(rows, d); },
          [&](const part& c, const work_piece& w, std::size_t) {
            if (c.all.tokens.empty())
              work::pack_rows(c.all.x, w, c.rows);
            else
              work::pack_sources(c.all, d, w, c.rows);
          },
          [&](const chunk<T>& c, const work_piece& w) {
            return work::gathering(c.rows.tokens.empty() ? gate_up : gather, forward, c, d, w);
          });
    phase([&](std::size_t rows, std::size_t h) { return work::columns_to_compute(rows, lanes * d, h); },
          [&](const part& c, const work_piece& w, std::size_t worker) { compute_hidden(ctx, worker, bank, c, w); });
    phase([](std::size_t rows, std::size_t h) { return work::rows_to_pack(rows, h); },
          [](const part& c, const work_piece& w, std::size_t) {
            work::pack_rows(c.saved.column_block(lanes * c.width, c.width), w, c.rows);
          },
          [&](const chunk<T>& c, const work_piece& w) {
            return work::packing(down, forward, c, bank.width(c.rows.expert), w);
          });
    if (!chunks[0].rows.scatters())
      return phase([&](std::size_t rows, std::size_t h) { return work::columns_to_compute(rows, h, d); },
                   [&](const part& c, const work_piece& w, std::size_t) {
                     compute_output(bank, c, work::columns_of(w, c.count, d));
                   },
                   [&](const chunk<T>& c, const work_piece& w) {
                     return work::product(down, forward, c, bank.width(c.rows.expert), 1,
                                          work::columns_of(w, c.rows.count, d));
                   });
    std::size_t most_rows = 0;
    double cost = 0;
    for (const chunk<T>& c : chunks) {
      most_rows = std::max(most_rows, c.rows.count);
      cost += work::rows_and_depth(c.rows.count, bank.width(c.rows.expert));
    }
    simd_detail::run_phase(
        ctx, chunks.subview(0, 1), sizes,
        [&](const chunk<T>&) { return std::array{work::shared_columns(most_rows, cost, d)}; },
        [&](const chunk<T>&, const work_piece& w, [[maybe_unused]] std::size_t worker) {
          const block_range columns = work::columns_of(w, most_rows, d);
          for (const chunk<T>& c : chunks) {
            const part p(bank, c, memory);
            [[maybe_unused]] probes::watch<Context> watched;
            if constexpr (probes::observed<Context>)
              watched.begin(ctx, work::product(down, forward, c, p.width, 1, columns).by(worker));
            compute_output(bank, p, columns);
            for (std::size_t r = 0; r < p.count; ++r)
              rows::add_scaled(ctx.backend(), p.all.output_weight(r),
                               vector_view<const T>(p.out.row(r).subview(columns.first, columns.count)),
                               p.all.y.row(p.all.tokens[r]).subview(columns.first, columns.count));
          }
        });
  }

  template <execution_context Context>
  static void compute_hidden(const Context& ctx, [[maybe_unused]] std::size_t worker, const Bank& bank, const part& c,
                             const work_piece& w) {
    const block_range columns = work::columns_of(w, c.count, c.width);
    project_in(ctx, worker, bank, c, columns);
    [[maybe_unused]] probes::watch<Context> watched;
    if constexpr (probes::observed<Context>)
      watched.begin(ctx,
                    work::activation(probes::direction::forward, c.expert, c.count, lanes + 1, columns).by(worker));
    for (std::size_t r = 0; r < c.count; ++r)
      kind::activate(ctx.backend(), bank, c.saved.row(r), c.width, columns.first, columns.count);
  }
  template <execution_context Context>
  static void project_in([[maybe_unused]] const Context& ctx, [[maybe_unused]] std::size_t worker, const Bank& bank,
                         const part& c, block_range columns) noexcept {
    [[maybe_unused]] probes::watch<Context> watched;
    if constexpr (probes::observed<Context>)
      watched.begin(ctx, work::product(probes::stage::gate_up, probes::direction::forward, c.expert, c.count,
                                       bank.d_model(), lanes, columns)
                             .by(worker));
    const auto [j, count] = columns;
    for (std::size_t l = 0; l < lanes; ++l) {
      const matrix_view<T> sums = c.saved.column_block(l * c.width + j, count);
      multiply_packed_rows<layout::transposed, Arch, T>(c.rows, bank.weights().lane(c.expert, l).row_block(j, count),
                                                        sums);
      work::add_bias(bank.weights().lane_bias(c.expert, l), j, sums);
    }
  }

  static void compute_output(const Bank& bank, const part& c, const block_range& some) noexcept {
    const auto [j, count] = some;
    const matrix_view<T> columns = c.out.column_block(j, count);
    multiply_packed_rows<layout::transposed, Arch, T>(c.rows, bank.weights().output(c.expert).row_block(j, count),
                                                      columns);
    work::add_bias(bank.weights().output_bias(c.expert), j, columns);
  }
};

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
