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
#include "row_dots.hpp"

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <utility>
#include <vector>

namespace hmoe::python {

/// y of a batch in two phases, for as many experts at a time as have hidden values of 16 MB:
///   1  x · W_inᵀ ─ bias, step ─▶ hidden     piece: some hidden values of up to 128 rows of an expert
///   2  hidden · W_outᵀ ─ bias, weight ─▶ y  piece: some columns of y, of all experts in ascending order
/// A value is one sum whose order depends on nothing but its length; no two workers write the same one.
template <class Form, std::size_t Lanes> class in_place_forward {
  using S = typename Form::weight;
  using row_value = typename Form::row_value;
  using dots = row_dots<Form>;
  static constexpr std::size_t columns_of_piece = 8 * dots::columns_together;
  static constexpr std::size_t hidden_bytes = std::size_t{16} << 20U;

public:
  static void run(const forward_pass& pass) {
    const pass_context ctx = make_context(pass.bank->function, *pass.threads, *pass.scratch);
    const workspace::scope scope(ctx.workspace());
    const in_place_forward own(ctx, pass);
    own.run_all();
  }

private:
  /// Rows of an expert that are in work together, and where their hidden values begin.
  struct chunk {
    std::size_t expert, first, count, hidden;
  };

  in_place_forward(const pass_context& ctx, const forward_pass& pass)
      : ctx_(&ctx), bank_(pass.bank), rows_(pass.in, pass.bank->experts.size(), &ctx.workspace()), to_(pass.y),
        x_copy_(&ctx.workspace()), y_copy_(&ctx.workspace()), x_rows_(&ctx.workspace()) {
    const std::size_t tokens = pass.in.tokens, d = bank_->d_model;
    y_ = zero_rows<float, S>(ctx, pass.y, tokens, d, y_copy_);
    if constexpr (Form::encodes) {
      const matrix_view<const float> x = read_rows<float, S>(ctx, pass.in.x, tokens, d, x_copy_);
      x_step_ = Form::row_length(d);
      x_rows_.resize_for_overwrite(tokens * x_step_);
      hmoe::for_each_row(ctx, tokens,
                         [&](std::size_t t) { Form::encode(x.row(t).data(), d, x_rows_.data() + t * x_step_); });
      x_ = x_rows_.data();
    } else {
      x_step_ = d;
      x_ = static_cast<const row_value*>(pass.in.x);
    }
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
      const std::size_t all = rows_.plan().rows_of(e), length = Form::row_length(bank_->experts[e].width);
      for (std::size_t first = 0, count = 0; first < all; first += count) {
        count = std::min(dots::most_rows, all - first);
        if (values != 0 && (values + count * length) * sizeof(row_value) > hidden_bytes)
          finish();
        some.push_back({e, rows_.plan().offsets()[e] + first, count, values});
        values += count * length;
      }
    }
    finish();
    write_rows<float, S>(*ctx_, y_, to_);
  }

  void run_chunks(const std::vector<chunk>& chunks, std::size_t values) const {
    const workspace::scope scope(ctx_->workspace());
    buffer<row_value> hidden(values, &ctx_->workspace());
    // A piece of the first phase: a chunk, and the first of its hidden values.
    std::vector<std::pair<const chunk*, std::size_t>> pieces;
    for (const chunk& c : chunks)
      for (std::size_t j = 0; j < bank_->experts[c.expert].width; j += hidden_of_piece)
        pieces.emplace_back(&c, j);
    ctx_->executor().for_each(pieces.size(), [&](std::size_t i, std::size_t) {
      compute_hidden(*pieces[i].first, pieces[i].second, hidden.data());
    });
    ctx_->executor().for_each(blocks_of(bank_->d_model, columns_of_piece), [&](std::size_t i, std::size_t) {
      const block_range columns = block_at(i, columns_of_piece, bank_->d_model);
      for (const chunk& c : chunks)
        compute_output(c, columns, hidden.data());
    });
  }

  /// Where a form has an order of its own, pieces are encoded by themselves.
  static constexpr std::size_t hidden_of_piece =
      Form::encodes ? round_up(columns_of_piece, Form::step) : columns_of_piece;

  void compute_hidden(const chunk& c, std::size_t j, row_value* hidden) const {
    const expert_memory& e = bank_->experts[c.expert];
    const std::size_t count = std::min(hidden_of_piece, e.width - j), step = Form::row_length(e.width);
    const row_value* rows[dots::most_rows];
    for (std::size_t r = 0; r < c.count; ++r)
      rows[r] = x_ + rows_.plan().tokens()[c.first + r] * x_step_;
    alignas(64) float sums[Lanes][dots::most_rows * hidden_of_piece];
    for (std::size_t l = 0; l < Lanes; ++l) {
      const matrix_view<float> lane(sums[l], c.count, count);
      dots::multiply(rows, c.count, static_cast<const S*>(e.lanes[l]) + j * e.lane_stride, e.lane_stride, count,
                     bank_->d_model, lane);
      add_bias(static_cast<const S*>(e.lane_biases[l]), j, lane);
    }
    alignas(64) float activated[hidden_of_piece];
    const chosen_gate gate{bank_->function, bank_->limit, bank_->alpha};
    for (std::size_t r = 0; r < c.count; ++r) {
      const vector_view<const float> first(sums[0] + r * count, count);
      const vector_view<float> a(activated, count);
      if constexpr (Lanes == 2)
        experts::apply_gate(ctx_->backend(), gate, first, vector_view<const float>(sums[1] + r * count, count), a);
      else
        experts::activate<chosen_activation>(ctx_->backend(), first, a);
      Form::encode(activated, count, hidden + c.hidden + r * step + j);
    }
  }

  void compute_output(const chunk& c, block_range columns, const row_value* hidden) const {
    const expert_memory& e = bank_->experts[c.expert];
    const std::size_t step = Form::row_length(e.width);
    const row_value* rows[dots::most_rows];
    for (std::size_t r = 0; r < c.count; ++r)
      rows[r] = hidden + c.hidden + r * step;
    alignas(64) float sums[dots::most_rows * columns_of_piece];
    const matrix_view<float> out(sums, c.count, columns.count);
    dots::multiply(rows, c.count, static_cast<const S*>(e.output) + columns.first * e.output_stride, e.output_stride,
                   columns.count, e.width, out);
    add_bias(static_cast<const S*>(e.output_bias), columns.first, out);
    for (std::size_t r = 0; r < c.count; ++r) {
      const std::size_t slot = c.first + r;
      rows::add_scaled(ctx_->backend(), rows_.assigned().weights()[rows_.plan().entries()[slot]],
                       vector_view<const float>(out.row(r)),
                       y_.row(rows_.plan().tokens()[slot]).subview(columns.first, columns.count));
    }
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
  void* to_;
  matrix<float> x_copy_, y_copy_;
  buffer<row_value> x_rows_;
  const row_value* x_ = nullptr;
  std::size_t x_step_ = 0;
  matrix_view<float> y_;
};

} // namespace hmoe::python
