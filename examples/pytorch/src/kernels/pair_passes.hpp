// SPDX-License-Identifier: MIT
// The passes with gradients over experts of bfloat16, by vdpbf16ps on weights as they lie in tensors. Rows of tokens,
// hidden values and their gradients are rounded to bfloat16 once, as operands of products; sums, what stands between
// the projections, and what a pass keeps are float.
#pragma once

#include <hmoe/core/blocks.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/row_operations.hpp>

#include "batch_rows.hpp"
#include "context.hpp"
#include "group_bank.hpp"
#include "pair_products.hpp"
#include "run_passes.hpp"

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#if defined(__AVX512BF16__)

namespace hmoe::python {

/// Both passes, for as many experts at a time as have rows of 16 MB (or one, with all of its rows):
///   forward   1  x ─ gather ─▶ rows                      piece: some rows of an expert
///             2  rows · W_inᵀ ─ bias, step ─▶ saved, hidden   piece: some hidden values of an expert
///             3  hidden · W_outᵀ ─ bias, weight ─▶ y     piece: some columns of y, of all experts in ascending order
///   backward  1  x, weight · dy, activated values ─▶ rows
///             2  dy · W_out ─ derivative ─▶ dz           piece: some hidden values of an expert
///             3  dyᵀ · activated ─▶ dW_out               piece: some columns of a gradient
///             4  dz · W_in ─▶ dx                         piece: some columns of dx, of all experts
///             5  dzᵀ · x ─▶ dW_in                        piece: some columns of a gradient
/// No two workers write the same value, and the order of a sum depends on nothing but its length.
template <std::size_t Lanes> class pair_passes {
  static constexpr std::size_t group_bytes = std::size_t{16} << 20U;
  static constexpr std::size_t rows_together = 512; ///< that share packed weights
  static constexpr std::size_t panels_together = 2; ///< of columns as they lie: rows of 128 bytes are read
  static constexpr std::size_t most_panels = panels_together > Lanes ? panels_together : Lanes;
  static constexpr std::size_t columns_together = panels_together * pairs::panel_columns;
  static constexpr std::size_t packed_pairs =
      most_panels * pairs::pairs_of(pairs::depth_together) * pairs::panel_columns;
  static constexpr std::size_t sums_size = most_panels * rows_together * pairs::panel_columns;

public:
  static void run(const forward_pass& pass) {
    const pass_context ctx = make_context(pass.bank->function, *pass.threads, *pass.scratch);
    const workspace::scope scope(ctx.workspace());
    pair_passes(ctx, *pass.bank, pass.in).forward(pass);
  }
  static void run(const backward_pass& pass) {
    const pass_context ctx = make_context(pass.bank->function, *pass.threads, *pass.scratch);
    const workspace::scope scope(ctx.workspace());
    pair_passes(ctx, *pass.bank, pass.in).backward(pass);
  }

private:
  /// Rows of bfloat16 in the workspace.
  struct row_block {
    bfloat16* data = nullptr;
    std::size_t stride = 0;
    [[nodiscard]] bfloat16* row(std::size_t r) const noexcept { return data + r * stride; }
  };
  /// An expert in work: its rows, the values that it keeps for each, and its operands.
  struct part {
    std::size_t expert, width, count, first_slot;
    matrix_view<float> saved; ///< gate (of gated experts), up, activated values
    row_block x, dy, hidden, dz;
  };
  /// A piece of a phase: a part, and where it begins.
  struct piece {
    const part* of;
    std::size_t first;
  };
  /// A worker's own memory.
  struct scratch {
    pairs::pair* packed;
    float* sums;
  };

  pair_passes(const pass_context& ctx, const bank_memory& bank, const batch& in)
      : ctx_(&ctx), bank_(&bank), in_(in), d_(bank.d_model), rows_(in, bank.experts.size(), &ctx.workspace()) {}

  void forward(const forward_pass& pass) const {
    matrix<float> y_copy(&ctx_->workspace());
    const matrix_view<float> y = zero_rows<float, bfloat16>(*ctx_, pass.y, in_.tokens, d_, y_copy);
    const auto memory = own_memory();
    for_each_group(pass.saved, {.x = true, .hidden = true}, [&](std::span<const part> parts) {
      for_each_piece(parts, &part::count, rows_per_task, [&](const piece& p, std::size_t) {
        for (std::size_t r = p.first; r < std::min(p.first + rows_per_task, p.of->count); ++r)
          gather(*p.of, r);
      });
      for_each_piece(parts, &part::width, pairs::panel_columns,
                     [&](const piece& p, std::size_t worker) { compute_hidden(*p.of, p.first, memory(worker)); });
      ctx_->executor().for_each(blocks_of(d_, columns_together), [&](std::size_t i, std::size_t worker) {
        for (const part& p : parts)
          compute_output(p, block_at(i, columns_together, d_), static_cast<float*>(pass.outputs), y, memory(worker));
      });
    });
    write_rows<float, bfloat16>(*ctx_, y, pass.y);
  }

  void backward(const backward_pass& pass) const {
    matrix<float> dy_copy(&ctx_->workspace()), dx_copy(&ctx_->workspace());
    const matrix_view<const float> dy = read_rows<float, bfloat16>(*ctx_, pass.dy, in_.tokens, d_, dy_copy);
    matrix_view<float> dx;
    if (pass.dx != nullptr)
      dx = zero_rows<float, bfloat16>(*ctx_, pass.dx, in_.tokens, d_, dx_copy);
    write_weight_gradients(*ctx_, pass, rows_, dy);
    const bank_memory gradients = pass.gradients == nullptr ? without_tensors(*bank_) : *pass.gradients;
    clear_unused<bfloat16, Lanes>(*ctx_, rows_.plan(), gradients);
    const auto any = [&](const auto& of) {
      return std::any_of(gradients.experts.begin(), gradients.experts.end(), of);
    };
    const bool output = any([](const expert_memory& e) { return e.output != nullptr || e.output_bias != nullptr; });
    const bool input = any([](const expert_memory& e) {
      return e.lanes[0] != nullptr || e.lanes[1] != nullptr || e.lane_biases[0] != nullptr ||
             e.lane_biases[1] != nullptr;
    });
    const bool hidden = input || pass.dx != nullptr;
    if (!hidden && !output)
      return;
    const auto memory = own_memory();
    // What is read only has no const: the members are what a forward pass writes.
    auto* const saved = const_cast<void*>(pass.saved);
    for_each_group(saved, {.x = input, .dy = true, .hidden = output, .dz = hidden}, [&](std::span<const part> parts) {
      for_each_piece(parts, &part::count, rows_per_task, [&](const piece& p, std::size_t worker) {
        for (std::size_t r = p.first; r < std::min(p.first + rows_per_task, p.of->count); ++r) {
          if (input)
            gather(*p.of, r);
          scale_gradient(*p.of, r, dy, memory(worker));
          if (output)
            pairs::round_row(p.of->saved.row(r).data() + Lanes * p.of->width, p.of->width, p.of->hidden.row(r));
        }
      });
      if (hidden)
        for_each_piece(parts, &part::width, columns_together, [&](const piece& p, std::size_t worker) {
          hidden_gradient(*p.of, p.first, gradients.experts[p.of->expert], memory(worker));
        });
      if (output)
        output_gradients(parts, gradients, dy, memory);
      if (pass.dx != nullptr)
        ctx_->executor().for_each(blocks_of(d_, columns_together), [&](std::size_t i, std::size_t worker) {
          for (const part& p : parts)
            input_gradient(p, block_at(i, columns_together, d_), dx, memory(worker));
        });
      if (input)
        lane_gradients(parts, gradients);
    });
    if (pass.dx != nullptr)
      write_rows<float, bfloat16>(*ctx_, dx, pass.dx);
  }

  /// Which rows a pass needs of its experts.
  struct needed {
    bool x = false, dy = false, hidden = false, dz = false;
  };
  /// f(parts) of groups of those experts that have rows.
  template <class F> void for_each_group(void* saved, const needed& some, const F& f) const {
    std::vector<part> parts;
    std::size_t bytes = 0;
    auto* next = static_cast<float*>(saved);
    const auto end_group = [&] {
      if (parts.empty())
        return;
      const workspace::scope group(ctx_->workspace());
      const auto take = [&](bool needs, std::size_t count, std::size_t length) {
        return needs ? row_block{allocate<bfloat16>(count * length), length} : row_block{};
      };
      for (part& p : parts) {
        p.x = take(some.x, p.count, pairs::row_length(d_));
        p.dy = take(some.dy, p.count, pairs::row_length(d_));
        p.hidden = take(some.hidden, p.count, pairs::row_length(p.width));
        p.dz = take(some.dz, p.count, pairs::row_length(Lanes * lane_length(p.width)));
      }
      f(std::span<const part>(parts));
      parts.clear();
      bytes = 0;
    };
    for (std::size_t e = 0; e < bank_->experts.size(); ++e) {
      const std::size_t count = rows_.plan().rows_of(e), h = bank_->experts[e].width, kept = (Lanes + 1) * h;
      if (count == 0)
        continue;
      const std::size_t own = count * sizeof(bfloat16) * ((some.x ? d_ : 0) + (some.dy ? d_ : 0) + (Lanes + 1) * h);
      if (bytes + own > group_bytes)
        end_group();
      bytes += own;
      parts.push_back({e, h, count, rows_.plan().offsets()[e], {next, count, kept}, {}, {}, {}, {}});
      next += count * kept;
    }
    end_group();
  }
  template <class T> [[nodiscard]] T* allocate(std::size_t count) const {
    return static_cast<T*>(ctx_->workspace().allocate(std::max<std::size_t>(count, 1) * sizeof(T), memory_alignment));
  }
  /// memory(worker) for products of rows.
  [[nodiscard]] auto own_memory() const {
    const std::size_t workers = ctx_->executor().concurrency(), row = round_up(d_, std::size_t{16});
    const std::size_t sums = std::max(sums_size, row);
    return [packed = allocate<pairs::pair>(workers * packed_pairs), all = allocate<float>(workers * sums),
            sums](std::size_t worker) { return scratch{packed + worker * packed_pairs, all + worker * sums}; };
  }
  /// f(piece, worker), pieces of `size` rows or columns of each part.
  template <class F>
  void for_each_piece(std::span<const part> parts, std::size_t part::* counted, std::size_t size, const F& f) const {
    std::vector<piece> pieces;
    for (const part& p : parts)
      for (std::size_t first = 0; first < p.*counted; first += size)
        pieces.push_back({&p, first});
    ctx_->executor().for_each(pieces.size(), [&](std::size_t i, std::size_t worker) { f(pieces[i], worker); });
  }

  /// Values of a lane in a row of dz, so that the next lane begins with a pair.
  [[nodiscard]] static constexpr std::size_t lane_length(std::size_t width) noexcept { return width + width % 2; }
  [[nodiscard]] std::size_t token(const part& p, std::size_t r) const noexcept {
    return rows_.plan().tokens()[p.first_slot + r];
  }
  [[nodiscard]] float weight(const part& p, std::size_t r) const noexcept {
    return rows_.assigned().weights()[rows_.plan().entries()[p.first_slot + r]];
  }

  void gather(const part& p, std::size_t r) const {
    bfloat16* const to = p.x.row(r);
    std::copy_n(static_cast<const bfloat16*>(in_.x) + token(p, r) * d_, d_, to);
    if (d_ % 2 != 0)
      to[d_] = bfloat16();
  }
  void scale_gradient(const part& p, std::size_t r, matrix_view<const float> dy, const scratch& own) const {
    rows::copy_scaled(ctx_->backend(), weight(p, r), dy.row(token(p, r)), vector_view<float>(own.sums, d_));
    pairs::round_row(own.sums, d_, p.dy.row(r));
  }

  /// Columns [first, first + columns) of a matrix as they are, in panels.
  static void pack_panels(const bfloat16* from, std::size_t stride, std::size_t columns, std::size_t depth,
                          pairs::pair* to) noexcept {
    for (std::size_t j = 0; j < columns; j += pairs::panel_columns)
      pairs::pack_columns<pairs::panel_columns>(from + j, stride, std::min(pairs::panel_columns, columns - j), depth,
                                                to + j * pairs::pairs_of(depth));
  }

  void compute_hidden(const part& p, std::size_t j, const scratch& own) const {
    const expert_memory& e = bank_->experts[p.expert];
    const std::size_t columns = std::min(pairs::panel_columns, p.width - j), h = p.width;
    const chosen_gate gate{bank_->function, bank_->limit, bank_->alpha};
    for (std::size_t first = 0; first < p.count; first += rows_together) {
      const std::size_t count = std::min(rows_together, p.count - first);
      const auto pack = [&](std::size_t k, std::size_t depth, pairs::pair* to) {
        for (std::size_t l = 0; l < Lanes; ++l)
          pairs::pack_rows(static_cast<const bfloat16*>(e.lanes[l]) + j * e.lane_stride + k, e.lane_stride, columns,
                           depth, to + l * pairs::pairs_of(depth) * pairs::panel_columns);
      };
      pairs::multiply_rows(p.x.row(first), p.x.stride, count, d_, Lanes, pack, own.packed, false, own.sums);
      for (std::size_t r = 0; r < count; ++r) {
        float* const row = p.saved.row(first + r).data();
        for (std::size_t l = 0; l < Lanes; ++l)
          with_bias(own.sums + (l * count + r) * pairs::panel_columns, columns, e.lane_biases[l], j, row + l * h + j);
        const vector_view<const float> z(row + j, columns);
        const vector_view<float> a(row + Lanes * h + j, columns);
        if constexpr (Lanes == 2)
          experts::apply_gate(ctx_->backend(), gate, z, vector_view<const float>(row + h + j, columns), a);
        else
          experts::activate<chosen_activation>(ctx_->backend(), z, a);
        pairs::round_row(a.data(), columns, p.hidden.row(first + r) + j);
      }
    }
  }
  static void with_bias(const float* sums, std::size_t columns, const void* bias, std::size_t j, float* to) noexcept {
    const auto* values = static_cast<const bfloat16*>(bias);
    for (std::size_t c = 0; c < columns; ++c)
      to[c] = values == nullptr ? sums[c] : sums[c] + static_cast<float>(values[j + c]);
  }

  void compute_output(const part& p, block_range columns, float* outputs, matrix_view<float> y,
                      const scratch& own) const {
    const expert_memory& e = bank_->experts[p.expert];
    for (std::size_t first = 0; first < p.count; first += rows_together) {
      const std::size_t count = std::min(rows_together, p.count - first);
      const auto pack = [&](std::size_t k, std::size_t depth, pairs::pair* to) {
        for (std::size_t j = 0; j < columns.count; j += pairs::panel_columns)
          pairs::pack_rows(static_cast<const bfloat16*>(e.output) + (columns.first + j) * e.output_stride + k,
                           e.output_stride, std::min(pairs::panel_columns, columns.count - j), depth,
                           to + j * pairs::pairs_of(depth));
      };
      pairs::multiply_rows(p.hidden.row(first), p.hidden.stride, count, p.width, panels_of(columns.count), pack,
                           own.packed, false, own.sums);
      for (std::size_t r = 0; r < count; ++r)
        for (std::size_t j = 0; j < columns.count; j += pairs::panel_columns) {
          const std::size_t some = std::min(pairs::panel_columns, columns.count - j), c = columns.first + j;
          float* const out = outputs + (p.first_slot + first + r) * d_ + c;
          with_bias(sums_of(own, j, count, r), some, e.output_bias, c, out);
          rows::add_scaled(ctx_->backend(), weight(p, first + r), vector_view<const float>(out, some),
                           y.row(token(p, first + r)).subview(c, some));
        }
    }
  }
  [[nodiscard]] static std::size_t panels_of(std::size_t columns) noexcept {
    return blocks_of(columns, pairs::panel_columns);
  }
  /// Row r of the panel with column j.
  [[nodiscard]] static float* sums_of(const scratch& own, std::size_t j, std::size_t count, std::size_t r) noexcept {
    return own.sums + (j / pairs::panel_columns * count + r) * pairs::panel_columns;
  }

  void hidden_gradient(const part& p, std::size_t j, const expert_memory& gradients, const scratch& own) const {
    const expert_memory& e = bank_->experts[p.expert];
    const std::size_t columns = std::min(columns_together, p.width - j), h = p.width;
    const chosen_gate gate{bank_->function, bank_->limit, bank_->alpha};
    float bias_sums[Lanes][columns_together] = {};
    for (std::size_t first = 0; first < p.count; first += rows_together) {
      const std::size_t count = std::min(rows_together, p.count - first);
      const auto pack = [&](std::size_t k, std::size_t depth, pairs::pair* to) {
        pack_panels(static_cast<const bfloat16*>(e.output) + k * e.output_stride + j, e.output_stride, columns, depth,
                    to);
      };
      pairs::multiply_rows(p.dy.row(first), p.dy.stride, count, d_, panels_of(columns), pack, own.packed, false,
                           own.sums);
      for (std::size_t r = 0; r < count; ++r) {
        const float* const row = p.saved.row(first + r).data() + j;
        for (std::size_t i = 0; i < columns; i += pairs::panel_columns) {
          const std::size_t some = std::min(pairs::panel_columns, columns - i);
          alignas(64) float of_gate[pairs::panel_columns];
          float* const last = sums_of(own, i, count, r);
          const vector_view<const float> z(row + i, some);
          if constexpr (Lanes == 2)
            experts::apply_gate_backward(ctx_->backend(), gate, z, vector_view<const float>(row + h + i, some),
                                         vector_view<float>(of_gate, some), vector_view<float>(last, some));
          else
            experts::activate_backward<chosen_activation>(ctx_->backend(), z, vector_view<float>(last, some));
          for (std::size_t l = 0; l < Lanes; ++l) {
            const float* const values = l + 1 == Lanes ? last : of_gate;
            for (std::size_t c = 0; c < some; ++c)
              bias_sums[l][i + c] += values[c];
            pairs::round_row(values, some, p.dz.row(first + r) + l * lane_length(h) + j + i);
          }
        }
      }
    }
    for (std::size_t l = 0; l < Lanes; ++l)
      if (gradients.lane_biases[l] != nullptr)
        convert_row(bias_sums[l], columns, static_cast<bfloat16*>(gradients.lane_biases[l]) + j);
  }

  void input_gradient(const part& p, block_range columns, matrix_view<float> dx, const scratch& own) const {
    const expert_memory& e = bank_->experts[p.expert];
    for (std::size_t first = 0; first < p.count; first += rows_together) {
      const std::size_t count = std::min(rows_together, p.count - first);
      for (std::size_t l = 0; l < Lanes; ++l) {
        const auto pack = [&](std::size_t k, std::size_t depth, pairs::pair* to) {
          pack_panels(static_cast<const bfloat16*>(e.lanes[l]) + k * e.lane_stride + columns.first, e.lane_stride,
                      columns.count, depth, to);
        };
        pairs::multiply_rows(p.dz.row(first) + l * lane_length(p.width), p.dz.stride, count, p.width,
                             panels_of(columns.count), pack, own.packed, l != 0, own.sums);
      }
      for (std::size_t r = 0; r < count; ++r)
        for (std::size_t j = 0; j < columns.count; j += pairs::panel_columns) {
          const std::size_t some = std::min(pairs::panel_columns, columns.count - j);
          rows::add_scaled(ctx_->backend(), 1.0F, vector_view<const float>(sums_of(own, j, count, r), some),
                           dx.row(token(p, first + r)).subview(columns.first + j, some));
        }
    }
  }

  /// As many panels of gradients as are packed together fill a part of the L2 cache.
  [[nodiscard]] static std::size_t gradient_columns(std::size_t rows) noexcept {
    constexpr std::size_t bytes = std::size_t{256} << 10U, most = 8;
    const std::size_t panel = pairs::pairs_of(rows) * pairs::panel_columns * sizeof(pairs::pair);
    return std::clamp<std::size_t>(bytes / panel, 1, most) * pairs::panel_columns;
  }
  /// f(part, first column, columns, memory for multiply_columns) of gradients with that many columns.
  template <class Columns, class F>
  void for_each_gradient(std::span<const part> parts, const Columns& columns_of, const F& f) const {
    std::vector<piece> pieces;
    std::size_t most = 0;
    for (const part& p : parts) {
      const std::size_t some = gradient_columns(p.count);
      most = std::max(most, pairs::pairs_of_columns(p.count, some / pairs::panel_columns));
      for (std::size_t j = 0; j < columns_of(p); j += some)
        pieces.push_back({&p, j});
    }
    const workspace::scope scope(ctx_->workspace());
    auto* const memory = allocate<pairs::pair>(ctx_->executor().concurrency() * most);
    ctx_->executor().for_each(pieces.size(), [&](std::size_t i, std::size_t worker) {
      const part& p = *pieces[i].of;
      const std::size_t j = pieces[i].first;
      f(p, j, std::min(gradient_columns(p.count), columns_of(p) - j), memory + worker * most);
    });
  }

  template <class Memory>
  void output_gradients(std::span<const part> parts, const bank_memory& gradients, matrix_view<const float> dy,
                        const Memory& memory) const {
    for_each_gradient(
        parts, [](const part& p) { return p.width; },
        [&](const part& p, std::size_t j, std::size_t columns, pairs::pair* own) {
          const expert_memory& to = gradients.experts[p.expert];
          if (to.output != nullptr)
            pairs::multiply_columns(p.dy.data, p.dy.stride, d_, p.hidden.data + j, p.hidden.stride, columns, p.count,
                                    own, static_cast<bfloat16*>(to.output) + j, to.output_stride);
        });
    ctx_->executor().for_each(parts.size(), [&](std::size_t i, std::size_t worker) {
      const part& p = parts[i];
      auto* const to = static_cast<bfloat16*>(gradients.experts[p.expert].output_bias);
      if (to == nullptr)
        return;
      const vector_view<float> sums(memory(worker).sums, d_);
      std::fill(sums.begin(), sums.end(), 0.0F);
      for (std::size_t r = 0; r < p.count; ++r)
        rows::add_scaled(ctx_->backend(), weight(p, r), dy.row(token(p, r)), sums);
      convert_row(sums.data(), d_, to);
    });
  }
  void lane_gradients(std::span<const part> parts, const bank_memory& gradients) const {
    for_each_gradient(
        parts, [&](const part&) { return d_; },
        [&](const part& p, std::size_t j, std::size_t columns, pairs::pair* own) {
          const expert_memory& to = gradients.experts[p.expert];
          for (std::size_t l = 0; l < Lanes; ++l)
            if (to.lanes[l] != nullptr)
              pairs::multiply_columns(p.dz.data + l * lane_length(p.width), p.dz.stride, p.width, p.x.data + j,
                                      p.x.stride, columns, p.count, own, static_cast<bfloat16*>(to.lanes[l]) + j,
                                      to.lane_stride);
        });
  }

  const pass_context* ctx_;
  const bank_memory* bank_;
  batch in_;
  std::size_t d_;
  batch_rows<float> rows_;
};

} // namespace hmoe::python
#endif
