// SPDX-License-Identifier: MIT
// The forward pass without backward on weights as they lie in tensors: for one token, where weights are read once, as
// for many. Backward needs other values and other sums: run_passes.hpp has that forward pass.
#pragma once

#include <hmoe/core/blocks.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/row_operations.hpp>

#include "batch_rows.hpp"
#include "context.hpp"
#include "group_bank.hpp"
#include "lane_panels.hpp"
#include "row_dots.hpp"

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <utility>
#include <vector>

namespace hmoe::python {

/// y of a batch in phases, for as many experts at a time as have rows and hidden values of 32 MB:
///   1  x ─ encode ─▶ rows                   where weights are packed
///   2  x · W_inᵀ ─ bias, step ─▶ hidden     piece: some hidden values of a chunk of an expert's rows
///   3  hidden · W_outᵀ ─ bias, weight ─▶ y  piece: some columns of y, of all experts in ascending order
/// A value is one sum whose order depends on nothing but its length; no two workers write the same one. Weights of
/// float that many rows are multiplied with are packed by the piece that needs them (lane_panels.hpp), with the same
/// bits.
template <class Form, std::size_t Lanes> class in_place_forward {
  using S = typename Form::weight;
  using row_value = typename Form::row_value;
  using dots = row_dots<Form>;
  static constexpr std::size_t columns_of_piece = 8 * dots::columns_together;
  static constexpr std::size_t bytes_together = std::size_t{32} << 20U;
  static constexpr bool may_pack = std::same_as<Form, float_rows>;
  /// Rows of an expert from which on packing pays; columns of a piece at most.
  static constexpr std::size_t packing_rows = 96;
  static constexpr std::size_t packed_columns = 2 * lane_panels::columns_together;

public:
  static void run(const forward_pass& pass) {
    const pass_context ctx = make_context(pass.bank->function, *pass.threads, *pass.scratch);
    const workspace::scope scope(ctx.workspace());
    const in_place_forward own(ctx, pass);
    own.run_all();
  }

private:
  /// Rows of an expert that are in work together, and where they and their hidden values begin; where weights are not
  /// packed, rows are those of x.
  struct chunk {
    std::size_t expert, first, count;
    bool packs;
    std::size_t rows, hidden;
  };
  /// What a worker packs, and sums that it has not finished.
  struct scratch {
    float *panels, *partial;
  };

  /// Rows never begin a multiple of 1 KB apart, all in the same few places of L1.
  [[nodiscard]] static std::size_t row_length(std::size_t depth) noexcept {
    return backends::formats::detail::padded_row<row_value>(Form::row_length(depth));
  }

  in_place_forward(const pass_context& ctx, const forward_pass& pass)
      : ctx_(&ctx), bank_(pass.bank), rows_(pass.in, pass.bank->experts.size(), &ctx.workspace()),
        in_(static_cast<const S*>(pass.in.x)), to_(pass.y), x_copy_(&ctx.workspace()), y_copy_(&ctx.workspace()),
        x_rows_(&ctx.workspace()) {
    const std::size_t tokens = pass.in.tokens, d = bank_->d_model;
    y_ = zero_rows<float, S>(ctx, pass.y, tokens, d, y_copy_);
    if (!reads_x())
      return;
    x_step_ = row_length(d);
    x_rows_.resize_for_overwrite(tokens * x_step_);
    if constexpr (Form::encodes) {
      const matrix_view<const float> x = read_rows<float, S>(ctx, pass.in.x, tokens, d, x_copy_);
      hmoe::for_each_row(ctx, tokens,
                         [&](std::size_t t) { Form::encode(x.row(t).data(), d, x_rows_.data() + t * x_step_); });
    } else {
      hmoe::for_each_row(ctx, tokens, [&](std::size_t t) {
        std::copy_n(static_cast<const row_value*>(pass.in.x) + t * d, d, x_rows_.data() + t * x_step_);
      });
    }
    x_ = x_rows_.data();
  }

  [[nodiscard]] bool packs(std::size_t expert) const noexcept {
    return may_pack && rows_.plan().rows_of(expert) >= packing_rows;
  }
  /// Whether any expert does not pack, and so reads rows of x as they are.
  [[nodiscard]] bool reads_x() const noexcept {
    for (std::size_t e = 0; e < bank_->experts.size(); ++e)
      if (rows_.plan().rows_of(e) != 0 && !packs(e))
        return true;
    return false;
  }

  /// Chunks of an expert whose weights are packed, which every chunk does anew: as few as fit, but some for every
  /// worker.
  [[nodiscard]] std::size_t packed_chunks(std::size_t rows, std::size_t width) const noexcept {
    const std::size_t row = lane_panels::rows_size(1, bank_->d_model) + lane_panels::rows_size(1, width);
    const std::size_t fitting = std::max(bytes_together / (row * sizeof(row_value)), lane_panels::rows_together);
    const std::size_t pieces = std::max(packed_pieces(width), std::size_t{1});
    return std::max(blocks_of(rows, fitting), std::min(blocks_of(rows, 4 * lane_panels::rows_together),
                                                       blocks_of(ctx_->executor().concurrency(), pieces)));
  }

  void run_all() const {
    std::vector<chunk> some;
    std::size_t values = 0;
    const auto finish = [&] {
      if (!some.empty())
        run_chunks(some, values);
      some.clear();
      values = 0;
    };
    for (std::size_t e = 0; e < bank_->experts.size(); ++e) {
      const std::size_t all = rows_.plan().rows_of(e);
      const std::size_t h = bank_->experts[e].width;
      const std::size_t parts = packs(e) ? packed_chunks(all, h) : blocks_of(all, dots::most_rows);
      for (std::size_t p = 0; p < parts; ++p) {
        const auto [first, count] = even_part(p, parts, all);
        const std::size_t rows = packs(e) ? lane_panels::rows_size(count, bank_->d_model) : 0;
        const std::size_t hidden = packs(e) ? lane_panels::rows_size(count, h) : count * row_length(h);
        if (values != 0 && (values + rows + hidden) * sizeof(row_value) > bytes_together)
          finish();
        some.push_back({e, rows_.plan().offsets()[e] + first, count, packs(e), values, values + rows});
        values += rows + hidden;
      }
    }
    finish();
    write_rows<float, S>(*ctx_, y_, to_);
  }

  void run_chunks(const std::vector<chunk>& chunks, std::size_t values) const {
    const workspace::scope scope(ctx_->workspace());
    buffer<row_value> memory(values, &ctx_->workspace());
    // A piece of a phase: a chunk, and some of its rows or hidden values.
    std::vector<std::pair<const chunk*, block_range>> pieces;
    std::size_t deepest = 0; // sum for which weights are packed
    for (const chunk& c : chunks)
      if (c.packs) {
        deepest = std::max({deepest, bank_->d_model, bank_->experts[c.expert].width});
        for (std::size_t i = 0; i < blocks_of(c.count, encoded_together); ++i)
          pieces.emplace_back(&c, block_at(i, encoded_together, c.count));
      }
    const bool packs = deepest != 0;
    const std::size_t panels = packs ? Lanes * lane_panels::panels_size(packed_columns, deepest) : 0;
    const std::size_t all = packs ? panels + lane_panels::partial_size(most_rows, Lanes * packed_columns) : 0;
    buffer<float> of_workers(ctx_->executor().concurrency() * all, &ctx_->workspace());
    const auto own = [&](std::size_t worker) {
      float* first = of_workers.data() + worker * all;
      return scratch{first, first + panels};
    };
    if constexpr (may_pack)
      if (packs)
        ctx_->executor().for_each(pieces.size(), [&](std::size_t i, std::size_t) {
          encode_rows(*pieces[i].first, pieces[i].second, memory.data());
        });
    pieces.clear();
    for (const chunk& c : chunks)
      for (std::size_t i = 0, width = bank_->experts[c.expert].width;
           i < column_pieces(c.packs, hidden_of_piece, width); ++i)
        pieces.emplace_back(&c, columns_of(i, c.packs, hidden_of_piece, width));
    ctx_->executor().for_each(pieces.size(), [&](std::size_t i, std::size_t worker) {
      compute_hidden(*pieces[i].first, pieces[i].second, memory.data(), own(worker));
    });
    const std::size_t d = bank_->d_model;
    ctx_->executor().for_each(column_pieces(packs, columns_of_piece, d), [&](std::size_t i, std::size_t worker) {
      for (const chunk& c : chunks)
        compute_output(c, columns_of(i, packs, columns_of_piece, d), memory.data(), own(worker));
    });
  }

  /// Pieces of `width` columns whose weights are packed: of one panel or two, so that all workers have as much to do.
  [[nodiscard]] std::size_t packed_pieces(std::size_t width) const noexcept {
    const std::size_t pieces = round_up(blocks_of(width, packed_columns), ctx_->executor().concurrency());
    return std::min(pieces, blocks_of(width, lane_panels::columns_together));
  }
  /// Without packing a piece has `together` columns.
  [[nodiscard]] std::size_t column_pieces(bool packs, std::size_t together, std::size_t width) const noexcept {
    return packs ? packed_pieces(width) : blocks_of(width, together);
  }
  [[nodiscard]] block_range columns_of(std::size_t i, bool packs, std::size_t together,
                                       std::size_t width) const noexcept {
    if (!packs)
      return block_at(i, together, width);
    constexpr std::size_t panel = lane_panels::columns_together;
    const block_range panels = even_part(i, packed_pieces(width), blocks_of(width, panel));
    const std::size_t first = panels.first * panel;
    return {first, std::min(panels.count * panel, width - first)};
  }

  /// Where a form has an order of its own, pieces are encoded by themselves.
  static constexpr std::size_t hidden_of_piece =
      Form::encodes ? round_up(columns_of_piece, Form::step) : columns_of_piece;
  /// Rows of a call, and their columns, at most.
  static constexpr std::size_t most_rows =
      may_pack ? std::max(dots::most_rows, lane_panels::rows_together) : dots::most_rows;
  static constexpr std::size_t most_columns = std::max(hidden_of_piece, packed_columns);
  static constexpr std::size_t encoded_together = 16; ///< rows of a piece

  void encode_rows(const chunk& c, block_range some, row_value* memory) const {
    const std::size_t d = bank_->d_model;
    for (std::size_t r = some.first; r < some.first + some.count; ++r)
      lane_panels::encode(in_ + rows_.plan().tokens()[c.first + r] * d, 0, d, d, c.count, r, memory + c.rows);
  }

  /// sums[l](r, j) = ⟨row first + r of the chunk, row j of matrix l⟩; matrices that are packed are in `own` already.
  template <std::size_t Matrices, class Row>
  static void multiply(const chunk& c, std::size_t first, const row_value* packed_rows, const Row& row,
                       const S* const (&weights)[Matrices], std::size_t stride, std::size_t depth, const scratch& own,
                       matrix_view<float> (&sums)[Matrices]) {
    const std::size_t count = sums[0].rows(), columns = sums[0].cols();
    if constexpr (may_pack)
      if (c.packs)
        return lane_panels::multiply(packed_rows, c.count, first, own.panels, depth, own.partial,
                                     {sums[0].data(), count, sums[0].stride()});
    const row_value* rows[dots::most_rows];
    for (std::size_t r = 0; r < count; ++r)
      rows[r] = row(first + r);
    for (std::size_t m = 0; m < Matrices; ++m)
      dots::multiply(rows, count, weights[m], stride, columns, depth, sums[m]);
  }
  /// Packs `columns` rows of some matrices for these products.
  template <std::size_t Matrices>
  static void pack(const chunk& c, const S* const (&weights)[Matrices], std::size_t stride, std::size_t columns,
                   std::size_t depth, float* panels) {
    if constexpr (may_pack)
      for (std::size_t m = 0; m < Matrices && c.packs; ++m)
        lane_panels::pack(weights[m], stride, columns, depth, panels + m * lane_panels::panels_size(columns, depth));
  }
  /// f(first, sums) for rows of a chunk that are multiplied together; sums[m](r, j) has `columns` columns.
  template <std::size_t Matrices, class F> static void for_each_part(const chunk& c, std::size_t columns, const F& f) {
    alignas(64) float values[most_rows * Matrices * most_columns];
    const std::size_t step = round_up(columns, lane_panels::columns_together), parts = blocks_of(c.count, most_rows);
    for (std::size_t p = 0; p < parts; ++p) {
      const auto [first, count] = even_part(p, parts, c.count);
      matrix_view<float> sums[Matrices];
      for (std::size_t m = 0; m < Matrices; ++m)
        sums[m] = {values + m * step, count, columns, Matrices * step};
      f(first, sums);
    }
  }

  void compute_hidden(const chunk& c, block_range some, row_value* memory, const scratch& own) const {
    const expert_memory& e = bank_->experts[c.expert];
    const std::size_t j = some.first, columns = some.count, d = bank_->d_model;
    const S* weights[Lanes];
    for (std::size_t l = 0; l < Lanes; ++l)
      weights[l] = static_cast<const S*>(e.lanes[l]) + j * e.lane_stride;
    pack(c, weights, e.lane_stride, columns, d, own.panels);
    alignas(64) float activated[most_columns];
    const chosen_gate gate{bank_->function, bank_->limit, bank_->alpha};
    for_each_part<Lanes>(c, columns, [&](std::size_t begin, matrix_view<float>(&sums)[Lanes]) {
      const auto row = [&](std::size_t r) { return x_ + rows_.plan().tokens()[c.first + r] * x_step_; };
      multiply(c, begin, memory + c.rows, row, weights, e.lane_stride, d, own, sums);
      for (std::size_t l = 0; l < Lanes; ++l)
        add_bias(static_cast<const S*>(e.lane_biases[l]), j, sums[l]);
      for (std::size_t r = 0; r < sums[0].rows(); ++r) {
        const vector_view<const float> first = sums[0].row(r);
        const vector_view<float> a(activated, columns);
        if constexpr (Lanes == 2)
          experts::apply_gate(ctx_->backend(), gate, first, vector_view<const float>(sums[1].row(r)), a);
        else
          experts::activate<chosen_activation>(ctx_->backend(), first, a);
        if constexpr (may_pack)
          if (c.packs) {
            lane_panels::encode(activated, j, columns, e.width, c.count, begin + r, memory + c.hidden);
            continue;
          }
        Form::encode(activated, columns, memory + c.hidden + (begin + r) * row_length(e.width) + j);
      }
    });
  }

  void compute_output(const chunk& c, block_range columns, const row_value* memory, const scratch& own) const {
    const expert_memory& e = bank_->experts[c.expert];
    const row_value* hidden = memory + c.hidden;
    const S* weights[1] = {static_cast<const S*>(e.output) + columns.first * e.output_stride};
    pack(c, weights, e.output_stride, columns.count, e.width, own.panels);
    for_each_part<1>(c, columns.count, [&](std::size_t begin, matrix_view<float>(&out)[1]) {
      const auto row = [&](std::size_t r) { return hidden + r * row_length(e.width); };
      multiply(c, begin, hidden, row, weights, e.output_stride, e.width, own, out);
      add_bias(static_cast<const S*>(e.output_bias), columns.first, out[0]);
      for (std::size_t r = 0; r < out[0].rows(); ++r) {
        const std::size_t slot = c.first + begin + r;
        rows::add_scaled(ctx_->backend(), rows_.assigned().weights()[rows_.plan().entries()[slot]],
                         vector_view<const float>(out[0].row(r)),
                         y_.row(rows_.plan().tokens()[slot]).subview(columns.first, columns.count));
      }
    });
  }

  static void add_bias(const S* bias, std::size_t first, matrix_view<float> to) noexcept {
    if (bias != nullptr)
      for (std::size_t r = 0; r < to.rows(); ++r)
        for (std::size_t c = 0; c < to.cols(); ++c)
          to(r, c) += static_cast<float>(bias[first + c]);
  }

  const pass_context* ctx_;
  const bank_memory* bank_;
  batch_rows<float> rows_;
  const S* in_;
  void* to_;
  matrix<float> x_copy_, y_copy_;
  buffer<row_value> x_rows_;
  const row_value* x_ = nullptr;
  std::size_t x_step_ = 0;
  matrix_view<float> y_;
};

} // namespace hmoe::python
