// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd/ffn_kind.hpp>
#include <hmoe/backends/simd/ffn_work.hpp>
#include <hmoe/backends/simd/row_waves.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/execution/context.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

namespace hmoe::backends::simd_detail {

/// The forward pass of all feed-forward experts of a bank on weights as they are, in four phases, each shared among the
/// workers:
///   1  x ─ pack ─▶ rows
///   2  rows · W_inᵀ ─ bias, activation ─▶ saved        work: some hidden values of a chunk
///   3  activated values ─ pack ─▶ rows
///   4  rows · W_outᵀ ─ bias ─▶ y                       work: some columns of a chunk
/// A worker packs the part of a weight matrix that its piece needs, once for all rows of a chunk. Nothing packed
/// outlives the pass, so an optimiser may change weights at any time.
template <class Bank, class Arch> class ffn_forward {
  using T = typename Bank::value_type;
  using kind = ffn_kind<Bank>;
  using work = ffn_work<T, Arch>;
  using piece = work_piece;
  static constexpr std::size_t lanes = kind::lanes;

  struct chunk {
    std::size_t expert, width, count;
    matrix_view<const T> x;
    matrix_view<T> saved, y;
    T* rows;
  };

public:
  template <execution_context Context>
  static void run(const Context& ctx, const Bank& bank, vector_view<const expert_rows<T>> all_rows) {
    const std::size_t d = bank.d_model();
    // Without a tape the saved values have a place in the workspace.
    const auto packed = [&](std::size_t i, std::size_t rows) {
      return work::rows_form::size(rows, std::max(d, bank.width(all_rows[i].expert)));
    };
    const auto values = [&](std::size_t i, std::size_t rows) {
      return packed(i, rows) + (all_rows[i].keeps() ? 0 : rows * bank.saved_per_row(all_rows[i].expert));
    };
    simd_detail::for_each_wave<T>(ctx, bank, all_rows, values, [&](vector_view<const row_chunk> wave, T* memory) {
      buffer<chunk> chunks(wave.size(), &ctx.workspace());
      for (std::size_t i = 0; i < wave.size(); ++i) {
        const row_chunk& c = wave[i];
        const expert_rows<T> r = all_rows[c.work].part(c.first, c.rows);
        T* rows = memory + c.memory;
        const matrix_view<T> saved =
            r.keeps() ? r.saved : matrix_view<T>(rows + packed(c.work, c.rows), c.rows, bank.saved_per_row(r.expert));
        chunks[i] = {r.expert, bank.width(r.expert), c.rows, r.x, saved, r.y, rows};
      }
      run_phases(ctx, bank, std::as_const(chunks).view());
    });
  }

private:
  template <execution_context Context>
  static void run_phases(const Context& ctx, const Bank& bank, vector_view<const chunk> chunks) {
    const std::size_t d = bank.d_model();
    work::run(
        ctx, chunks, [&](const chunk& c) { return std::array{work::rows_to_pack(c.count, d)}; },
        [](const chunk& c, const piece& w) { work::pack_rows(c.x, w, c.rows); });
    work::run(
        ctx, chunks, [&](const chunk& c) { return std::array{work::columns_to_compute(c.count, lanes * d, c.width)}; },
        [&](const chunk& c, const piece& w) { compute_hidden(ctx.backend(), bank, c, w); });
    work::run(
        ctx, chunks, [](const chunk& c) { return std::array{work::rows_to_pack(c.count, c.width)}; },
        [](const chunk& c, const piece& w) {
          work::pack_rows(c.saved.column_block(lanes * c.width, c.width), w, c.rows);
        });
    work::run(
        ctx, chunks, [&](const chunk& c) { return std::array{work::columns_to_compute(c.count, c.width, d)}; },
        [&](const chunk& c, const piece& w) { compute_output(bank, c, w); });
  }

  template <class Math> static void compute_hidden(const Math& math, const Bank& bank, const chunk& c, const piece& w) {
    const auto [j, count] = work::columns_of(w, c.count, c.width);
    for (std::size_t l = 0; l < lanes; ++l) {
      const matrix_view<T> sums = c.saved.column_block(l * c.width + j, count);
      multiply_packed_rows<layout::transposed, Arch, T>(c.rows, bank.weights().lane(c.expert, l).row_block(j, count),
                                                        sums);
      work::add_bias(bank.weights().lane_bias(c.expert, l), j, sums);
    }
    for (std::size_t r = 0; r < c.count; ++r)
      kind::activate(math, bank, c.saved.row(r), c.width, j, count);
  }

  static void compute_output(const Bank& bank, const chunk& c, const piece& w) noexcept {
    const auto [j, count] = work::columns_of(w, c.count, bank.d_model());
    const matrix_view<T> columns = c.y.column_block(j, count);
    multiply_packed_rows<layout::transposed, Arch, T>(c.rows, bank.weights().output(c.expert).row_block(j, count),
                                                      columns);
    work::add_bias(bank.weights().output_bias(c.expert), j, columns);
  }
};

} // namespace hmoe::backends::simd_detail
