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

/// The backward pass of all feed-forward experts of a bank, in four phases, each shared among the workers:
///   1  dy ─ pack ─▶ rows;  activated values ─ pack ─▶ columns
///   2  rows · W_out ─ derivative ─▶ dz                  work: some hidden values of a chunk
///      dyᵀ · columns ─ add ─▶ gradient of W_out         work: some rows of the gradient
///   3  dz ─ pack ─▶ rows;  x ─ pack ─▶ columns
///   4  rows · W_in ─▶ dx                                work: some columns of a chunk
///      dzᵀ · columns ─ add ─▶ gradient of W_in          work: some rows of the gradient
/// No two workers write the same value, and each is one sum over ascending rows or columns: the bits of gradients do
/// not depend on the number of workers. Of an expert one chunk at a time is in work, in the order of its rows.
template <class Bank, class Arch> class ffn_backward {
  using T = typename Bank::value_type;
  using kind = ffn_kind<Bank>;
  using work = ffn_work<T, Arch>;
  using piece = work_piece;
  static constexpr std::size_t lanes = kind::lanes;

  struct chunk {
    std::size_t expert, width, count;
    matrix_view<const T> x, saved, dy;
    matrix_view<T> dz, dx;
    T *rows, *columns;

    [[nodiscard]] matrix_view<const T> activated() const noexcept { return saved.column_block(lanes * width, width); }
  };

public:
  template <execution_context Context>
  static void run(const Context& ctx, const Bank& bank, vector_view<const expert_rows<T>> all_rows, Bank& gradients) {
    const std::size_t d = bank.d_model();
    const auto packed = [&](std::size_t h, std::size_t rows) {
      return work::rows_form::size(rows, std::max(d, lanes * h));
    };
    const auto values = [&](std::size_t i, std::size_t rows) {
      const std::size_t h = bank.width(all_rows[i].expert);
      return rows * lanes * h + packed(h, rows) + work::columns_form::size(std::max(d, h), rows);
    };
    simd_detail::for_each_wave<T>(ctx, bank, all_rows, values, [&](vector_view<const row_chunk> wave, T* memory) {
      buffer<chunk> chunks(wave.size(), &ctx.workspace());
      for (std::size_t i = 0; i < wave.size(); ++i) {
        const row_chunk& c = wave[i];
        const expert_rows<T> r = all_rows[c.work].part(c.first, c.rows);
        const std::size_t h = bank.width(r.expert);
        T *columns = memory + c.memory, *rows = columns + work::columns_form::size(std::max(d, h), c.rows),
          *dz = rows + packed(h, c.rows);
        chunks[i] = {r.expert, h,    c.rows, r.x, r.saved, r.dy, matrix_view<T>(dz, c.rows, lanes * h),
                     r.dx,     rows, columns};
      }
      run_phases(ctx, bank, std::as_const(chunks).view(), gradients);
    });
  }

private:
  template <execution_context Context>
  static void run_phases(const Context& ctx, const Bank& bank, vector_view<const chunk> chunks, Bank& gradients) {
    const std::size_t d = bank.d_model();
    auto& sums = gradients.weights();
    work::run(
        ctx, chunks,
        [&](const chunk& c) {
          return std::array{work::rows_to_pack(c.count, d), work::columns_to_pack(c.count, c.width)};
        },
        [](const chunk& c, const piece& w) {
          w.kind == 0 ? work::pack_rows(c.dy, w, c.rows) : work::pack_columns(c.activated(), w, c.columns);
        });
    work::run(
        ctx, chunks,
        [&](const chunk& c) {
          return std::array{work::columns_to_compute(c.count, d, c.width), work::gradient_to_add(c.count, d, c.width)};
        },
        [&](const chunk& c, const piece& w) {
          if (w.kind == 0)
            hidden_gradient(ctx.backend(), bank, c, w);
          else
            work::add_gradient(c.dy, c.columns, w, sums.output(c.expert), sums.output_bias(c.expert));
        });
    work::run(
        ctx, chunks,
        [&](const chunk& c) {
          return std::array{work::rows_to_pack(c.count, lanes * c.width), work::columns_to_pack(c.count, d)};
        },
        [](const chunk& c, const piece& w) {
          w.kind == 0 ? work::pack_rows(c.dz, w, c.rows) : work::pack_columns(c.x, w, c.columns);
        });
    work::run(
        ctx, chunks,
        [&](const chunk& c) {
          return std::array{work::columns_to_compute(c.count, lanes * c.width, d),
                            work::gradient_to_add(c.count, lanes * c.width, d)};
        },
        [&](const chunk& c, const piece& w) {
          if (w.kind == 0)
            input_gradient(bank, c, w);
          else
            work::add_gradient(c.dz, c.columns, w, sums.input(c.expert), sums.input_bias(c.expert));
        });
  }

  template <class Math>
  static void hidden_gradient(const Math& math, const Bank& bank, const chunk& c, const piece& w) {
    const auto [j, count] = work::columns_of(w, c.count, c.width);
    multiply_packed_rows<layout::plain, Arch, T>(c.rows, bank.weights().output(c.expert).column_block(j, count),
                                                 c.dz.column_block((lanes - 1) * c.width + j, count));
    for (std::size_t r = 0; r < c.count; ++r)
      kind::activate_backward(math, bank, c.saved.row(r), c.dz.row(r), c.width, j, count);
  }
  static void input_gradient(const Bank& bank, const chunk& c, const piece& w) noexcept {
    const auto [j, count] = work::columns_of(w, c.count, bank.d_model());
    multiply_packed_rows<layout::plain, Arch, T>(c.rows, bank.weights().input(c.expert).column_block(j, count),
                                                 c.dx.column_block(j, count));
  }
};

} // namespace hmoe::backends::simd_detail
