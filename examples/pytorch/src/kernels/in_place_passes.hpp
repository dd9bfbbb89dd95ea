// SPDX-License-Identifier: MIT
// The passes with gradients on weights as they lie in tensors, in rows or transposed. Rows of tokens, hidden values and
// their gradients are rounded to the type of the weights once, as operands of products; sums, what stands between the
// projections, and what a pass keeps are float.
#pragma once

#include <hmoe/core/blocks.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/row_operations.hpp>

#include "batch_rows.hpp"
#include "context.hpp"
#include "group_bank.hpp"
#include "panel_products.hpp"
#include "run_passes.hpp"

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

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
/// Of transposed weights, W_inᵀ and W_outᵀ, a product with W reads columns and one with Wᵀ rows, and each gradient is
/// the other product: xᵀ · dz and activatedᵀ · dy. Where their lanes are interleaved, so is dz.
template <class Products, std::size_t Lanes> class in_place_passes {
  using products = Products;
  using value = typename Products::value;
  using packed_value = typename Products::packed;
  static constexpr std::size_t group_bytes = std::size_t{16} << 20U;
  static constexpr std::size_t rows_together = 512; ///< that share packed weights
  static constexpr std::size_t panels_together = 2; ///< of columns as they lie: rows of 128 bytes are read
  static constexpr std::size_t most_panels = panels_together > Lanes ? panels_together : Lanes;
  static constexpr std::size_t columns_together = panels_together * products::panel_columns;
  static constexpr std::size_t packed_size =
      most_panels * products::length_of(products::depth_together) * products::panel_columns;
  static constexpr std::size_t sums_size = most_panels * rows_together * products::panel_columns;

public:
  static void run(const forward_pass& pass) {
    const pass_context ctx = make_context(pass.bank->function, *pass.threads, *pass.scratch);
    const workspace::scope scope(ctx.workspace());
    in_place_passes(ctx, *pass.bank, pass.in).forward(pass);
  }
  static void run(const backward_pass& pass) {
    const pass_context ctx = make_context(pass.bank->function, *pass.threads, *pass.scratch);
    const workspace::scope scope(ctx.workspace());
    in_place_passes(ctx, *pass.bank, pass.in).backward(pass);
  }

private:
  /// Rows of operands in the workspace.
  struct row_block {
    value* data = nullptr;
    std::size_t stride = 0;
    [[nodiscard]] value* row(std::size_t r) const noexcept { return data + r * stride; }
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
    packed_value* packed;
    float* sums;
  };

  in_place_passes(const pass_context& ctx, const bank_memory& bank, const batch& in)
      : ctx_(&ctx), bank_(&bank), in_(in), d_(bank.d_model), rows_(in, bank.experts.size(), &ctx.workspace()) {}

  void forward(const forward_pass& pass) const {
    matrix<float> y_copy(&ctx_->workspace());
    const matrix_view<float> y = zero_rows<float, value>(*ctx_, pass.y, in_.tokens, d_, y_copy);
    const auto memory = own_memory();
    for_each_group(pass.saved, {.x = true, .hidden = true}, [&](std::span<const part> parts) {
      for_each_piece(parts, &part::count, rows_per_task, [&](const piece& p, std::size_t) {
        for (std::size_t r = p.first; r < std::min(p.first + rows_per_task, p.of->count); ++r)
          gather(*p.of, r);
      });
      for_each_piece(parts, &part::width, products::panel_columns,
                     [&](const piece& p, std::size_t worker) { compute_hidden(*p.of, p.first, memory(worker)); });
      ctx_->executor().for_each(blocks_of(d_, columns_together), [&](std::size_t i, std::size_t worker) {
        for (const part& p : parts)
          compute_output(p, block_at(i, columns_together, d_), static_cast<float*>(pass.outputs), y, memory(worker));
      });
    });
    write_rows<float, value>(*ctx_, y, pass.y);
  }

  void backward(const backward_pass& pass) const {
    matrix<float> dy_copy(&ctx_->workspace()), dx_copy(&ctx_->workspace());
    const matrix_view<const float> dy = read_rows<float, value>(*ctx_, pass.dy, in_.tokens, d_, dy_copy);
    matrix_view<float> dx;
    if (pass.dx != nullptr)
      dx = zero_rows<float, value>(*ctx_, pass.dx, in_.tokens, d_, dx_copy);
    write_weight_gradients(*ctx_, pass, rows_, dy);
    const bank_memory gradients = pass.gradients == nullptr ? without_tensors(*bank_) : *pass.gradients;
    clear_unused<value, Lanes>(*ctx_, rows_.plan(), gradients);
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
            products::round_row(p.of->saved.row(r).data() + Lanes * p.of->width, p.of->width, p.of->hidden.row(r));
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
      write_rows<float, value>(*ctx_, dx, pass.dx);
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
        return needs ? row_block{allocate<value>(count * length), length} : row_block{};
      };
      for (part& p : parts) {
        p.x = take(some.x, p.count, products::row_length(d_));
        p.dy = take(some.dy, p.count, products::row_length(d_));
        p.hidden = take(some.hidden, p.count, products::row_length(p.width));
        p.dz = take(some.dz, p.count, products::row_length(Lanes * lane_length(p.width)));
      }
      f(std::span<const part>(parts));
      parts.clear();
      bytes = 0;
    };
    for (std::size_t e = 0; e < bank_->experts.size(); ++e) {
      const std::size_t count = rows_.plan().rows_of(e), h = bank_->experts[e].width, kept = (Lanes + 1) * h;
      if (count == 0)
        continue;
      const std::size_t own = count * sizeof(value) * ((some.x ? d_ : 0) + (some.dy ? d_ : 0) + (Lanes + 1) * h);
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
    return [packed = allocate<packed_value>(workers * packed_size), all = allocate<float>(workers * sums),
            sums](std::size_t worker) { return scratch{packed + worker * packed_size, all + worker * sums}; };
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
    value* const to = p.x.row(r);
    std::copy_n(static_cast<const value*>(in_.x) + token(p, r) * d_, d_, to);
    if (d_ % 2 != 0)
      to[d_] = value();
  }
  void scale_gradient(const part& p, std::size_t r, matrix_view<const float> dy, const scratch& own) const {
    rows::copy_scaled(ctx_->backend(), weight(p, r), dy.row(token(p, r)), vector_view<float>(own.sums, d_));
    products::round_row(own.sums, d_, p.dy.row(r));
  }

  /// Columns [j, j + columns) in panels, values [k, k + depth) of each: rows of a matrix in memory, or its columns.
  static void pack(bool in_rows, const void* matrix, std::size_t stride, std::size_t j, std::size_t columns,
                   std::size_t k, std::size_t depth, packed_value* to) noexcept {
    constexpr std::size_t panel = products::panel_columns;
    const value* from = static_cast<const value*>(matrix) + (in_rows ? j * stride + k : k * stride + j);
    for (std::size_t c = 0; c < columns; c += panel, to += products::length_of(depth) * panel) {
      const std::size_t some = std::min(panel, columns - c);
      if (in_rows)
        products::pack_rows(from + c * stride, stride, some, depth, to);
      else
        products::template pack_columns<panel>(from + c, stride, some, depth, to);
    }
  }
  /// How many lanes are columns of one matrix in turn.
  [[nodiscard]] std::size_t lanes_in_turn() const noexcept {
    return bank_->transposed && bank_->interleaved ? Lanes : 1;
  }
  /// Where the values of lane l begin in a row of dz.
  [[nodiscard]] static std::size_t place_of_lane(const part& p, std::size_t l) noexcept {
    return l * lane_length(p.width);
  }

  void compute_hidden(const part& p, std::size_t j, const scratch& own) const {
    const expert_memory& e = bank_->experts[p.expert];
    const std::size_t columns = std::min(products::panel_columns, p.width - j), h = p.width, in_turn = lanes_in_turn();
    const chosen_gate gate{bank_->function, bank_->limit, bank_->alpha};
    for (std::size_t first = 0; first < p.count; first += rows_together) {
      const std::size_t count = std::min(rows_together, p.count - first);
      const auto pack_lanes = [&](std::size_t k, std::size_t depth, packed_value* to) {
        for (std::size_t l = 0; l < Lanes; l += in_turn)
          pack(!bank_->transposed, e.lanes[l], e.lane_stride, in_turn * j, in_turn * columns, k, depth,
               to + l * products::length_of(depth) * products::panel_columns);
      };
      multiply_rows<products>(p.x.row(first), p.x.stride, count, d_, in_turn == 1 ? Lanes : panels_of(Lanes * columns),
                              pack_lanes, own.packed, false, own.sums);
      for (std::size_t r = 0; r < count; ++r) {
        float* const row = p.saved.row(first + r).data();
        for (std::size_t l = 0; l < Lanes; ++l) {
          const float* sums = sums_of(own, l * products::panel_columns, count, r);
          alignas(64) float of_lane[products::panel_columns];
          if (in_turn != 1) {
            for (std::size_t c = 0; c < columns; ++c) {
              const std::size_t place = Lanes * c + l;
              of_lane[c] = sums_of(own, place, count, r)[place % products::panel_columns];
            }
            sums = of_lane;
          }
          with_bias(sums, columns, e.lane_biases[l], j, row + l * h + j);
        }
        const vector_view<const float> z(row + j, columns);
        const vector_view<float> a(row + Lanes * h + j, columns);
        if constexpr (Lanes == 2)
          experts::apply_gate(ctx_->backend(), gate, z, vector_view<const float>(row + h + j, columns), a);
        else
          experts::activate<chosen_activation>(ctx_->backend(), z, a);
        products::round_row(a.data(), columns, p.hidden.row(first + r) + j);
      }
    }
  }
  static void with_bias(const float* sums, std::size_t columns, const void* bias, std::size_t j, float* to) noexcept {
    const auto* values = static_cast<const value*>(bias);
    for (std::size_t c = 0; c < columns; ++c)
      to[c] = values == nullptr ? sums[c] : sums[c] + static_cast<float>(values[j + c]);
  }

  void compute_output(const part& p, block_range columns, float* outputs, matrix_view<float> y,
                      const scratch& own) const {
    const expert_memory& e = bank_->experts[p.expert];
    for (std::size_t first = 0; first < p.count; first += rows_together) {
      const std::size_t count = std::min(rows_together, p.count - first);
      const auto pack_output = [&](std::size_t k, std::size_t depth, packed_value* to) {
        pack(!bank_->transposed, e.output, e.output_stride, columns.first, columns.count, k, depth, to);
      };
      multiply_rows<products>(p.hidden.row(first), p.hidden.stride, count, p.width, panels_of(columns.count),
                              pack_output, own.packed, false, own.sums);
      for (std::size_t r = 0; r < count; ++r)
        for (std::size_t j = 0; j < columns.count; j += products::panel_columns) {
          const std::size_t some = std::min(products::panel_columns, columns.count - j), c = columns.first + j;
          float* const out = outputs + (p.first_slot + first + r) * d_ + c;
          with_bias(sums_of(own, j, count, r), some, e.output_bias, c, out);
          rows::add_scaled(ctx_->backend(), weight(p, first + r), vector_view<const float>(out, some),
                           y.row(token(p, first + r)).subview(c, some));
        }
    }
  }
  [[nodiscard]] static std::size_t panels_of(std::size_t columns) noexcept {
    return blocks_of(columns, products::panel_columns);
  }
  /// Row r of the panel with column j.
  [[nodiscard]] static float* sums_of(const scratch& own, std::size_t j, std::size_t count, std::size_t r) noexcept {
    return own.sums + (j / products::panel_columns * count + r) * products::panel_columns;
  }

  void hidden_gradient(const part& p, std::size_t j, const expert_memory& gradients, const scratch& own) const {
    const expert_memory& e = bank_->experts[p.expert];
    const std::size_t columns = std::min(columns_together, p.width - j), h = p.width, in_turn = lanes_in_turn();
    const chosen_gate gate{bank_->function, bank_->limit, bank_->alpha};
    float bias_sums[Lanes][columns_together] = {};
    for (std::size_t first = 0; first < p.count; first += rows_together) {
      const std::size_t count = std::min(rows_together, p.count - first);
      const auto pack_output = [&](std::size_t k, std::size_t depth, packed_value* to) {
        pack(bank_->transposed, e.output, e.output_stride, j, columns, k, depth, to);
      };
      multiply_rows<products>(p.dy.row(first), p.dy.stride, count, d_, panels_of(columns), pack_output, own.packed,
                              false, own.sums);
      for (std::size_t r = 0; r < count; ++r) {
        const float* const row = p.saved.row(first + r).data() + j;
        for (std::size_t i = 0; i < columns; i += products::panel_columns) {
          const std::size_t some = std::min(products::panel_columns, columns - i);
          alignas(64) float of_gate[products::panel_columns];
          float* const last = sums_of(own, i, count, r);
          const vector_view<const float> z(row + i, some);
          if constexpr (Lanes == 2)
            experts::apply_gate_backward(ctx_->backend(), gate, z, vector_view<const float>(row + h + i, some),
                                         vector_view<float>(of_gate, some), vector_view<float>(last, some));
          else
            experts::activate_backward<chosen_activation>(ctx_->backend(), z, vector_view<float>(last, some));
          alignas(64) float together[Lanes * products::panel_columns];
          for (std::size_t l = 0; l < Lanes; ++l) {
            const float* const values = l + 1 == Lanes ? last : of_gate;
            for (std::size_t c = 0; c < some; ++c)
              bias_sums[l][i + c] += values[c];
            if (in_turn == 1)
              products::round_row(values, some, p.dz.row(first + r) + place_of_lane(p, l) + j + i);
            else
              for (std::size_t c = 0; c < some; ++c)
                together[Lanes * c + l] = values[c];
          }
          if (in_turn != 1)
            products::round_row(together, Lanes * some, p.dz.row(first + r) + Lanes * (j + i));
        }
      }
    }
    for (std::size_t l = 0; l < Lanes; ++l)
      if (gradients.lane_biases[l] != nullptr)
        convert_row(bias_sums[l], columns, static_cast<value*>(gradients.lane_biases[l]) + j);
  }

  void input_gradient(const part& p, block_range columns, matrix_view<float> dx, const scratch& own) const {
    const expert_memory& e = bank_->experts[p.expert];
    const std::size_t in_turn = lanes_in_turn();
    for (std::size_t first = 0; first < p.count; first += rows_together) {
      const std::size_t count = std::min(rows_together, p.count - first);
      for (std::size_t l = 0; l < Lanes; l += in_turn) {
        const auto pack_lane = [&](std::size_t k, std::size_t depth, packed_value* to) {
          pack(bank_->transposed, e.lanes[l], e.lane_stride, columns.first, columns.count, k, depth, to);
        };
        multiply_rows<products>(p.dz.row(first) + place_of_lane(p, l), p.dz.stride, count, in_turn * p.width,
                                panels_of(columns.count), pack_lane, own.packed, l != 0, own.sums);
      }
      for (std::size_t r = 0; r < count; ++r)
        for (std::size_t j = 0; j < columns.count; j += products::panel_columns) {
          const std::size_t some = std::min(products::panel_columns, columns.count - j);
          rows::add_scaled(ctx_->backend(), 1.0F, vector_view<const float>(sums_of(own, j, count, r), some),
                           dx.row(token(p, first + r)).subview(columns.first + j, some));
        }
    }
  }

  /// As many panels of gradients as are packed together fill a part of the L2 cache.
  [[nodiscard]] static std::size_t gradient_columns(std::size_t rows) noexcept {
    constexpr std::size_t bytes = std::size_t{256} << 10U, most = 8;
    const std::size_t panel = products::length_of(rows) * products::panel_columns * sizeof(packed_value);
    return std::clamp<std::size_t>(bytes / panel, 1, most) * products::panel_columns;
  }
  /// f(part, first column, columns, memory for multiply_columns) of gradients with that many columns.
  template <class Columns, class F>
  void for_each_gradient(std::span<const part> parts, const Columns& columns_of, const F& f) const {
    std::vector<piece> pieces;
    std::size_t most = 0;
    for (const part& p : parts) {
      const std::size_t some = gradient_columns(p.count);
      most = std::max(most, length_of_columns<products>(p.count, some / products::panel_columns));
      for (std::size_t j = 0; j < columns_of(p); j += some)
        pieces.push_back({&p, j});
    }
    const workspace::scope scope(ctx_->workspace());
    auto* const memory = allocate<packed_value>(ctx_->executor().concurrency() * most);
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
        parts, [&](const part& p) { return bank_->transposed ? d_ : p.width; },
        [&](const part& p, std::size_t j, std::size_t columns, packed_value* own) {
          const expert_memory& to = gradients.experts[p.expert];
          if (to.output != nullptr)
            multiply_operands(p.dy, d_, p.hidden, p.width, j, columns, p.count, own, to.output, to.output_stride);
        });
    ctx_->executor().for_each(parts.size(), [&](std::size_t i, std::size_t worker) {
      const part& p = parts[i];
      auto* const to = static_cast<value*>(gradients.experts[p.expert].output_bias);
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
    const std::size_t in_turn = lanes_in_turn();
    for_each_gradient(
        parts, [&](const part& p) { return bank_->transposed ? in_turn * p.width : d_; },
        [&](const part& p, std::size_t j, std::size_t columns, packed_value* own) {
          const expert_memory& to = gradients.experts[p.expert];
          for (std::size_t l = 0; l < Lanes; l += in_turn)
            if (to.lanes[l] != nullptr)
              multiply_operands({p.dz.data + place_of_lane(p, l), p.dz.stride}, in_turn * p.width, p.x, d_, j, columns,
                                p.count, own, to.lanes[l], to.lane_stride);
        });
  }
  /// Columns [j, j + columns) of the gradient aᵀ · b over so many rows of a_length and b_length values, or, of
  /// transposed weights, of bᵀ · a.
  void multiply_operands(row_block a, std::size_t a_length, row_block b, std::size_t b_length, std::size_t j,
                         std::size_t columns, std::size_t rows, packed_value* own, void* gradient,
                         std::size_t stride) const {
    if (bank_->transposed) {
      std::swap(a, b);
      std::swap(a_length, b_length);
    }
    multiply_columns<products>(a.data, a.stride, a_length, b.data + j, b.stride, columns, rows, own,
                               static_cast<value*>(gradient) + j, stride);
  }

  const pass_context* ctx_;
  const bank_memory* bank_;
  batch in_;
  std::size_t d_;
  batch_rows<float> rows_;
};

} // namespace hmoe::python
