// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/column_sums.cuh>
#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/epilogue.cuh>
#include <hmoe/backends/cuda/schedule.cuh>
#include <hmoe/backends/cuda/tile_loader.cuh>
#include <hmoe/backends/cuda/tile_product.cuh>
#include <hmoe/backends/cuda/tile_selection.cuh>
#include <hmoe/backends/cuda/weight_dots.cuh>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace hmoe::backends::cuda_detail {

/// d_projected = (weight · dy W_out) through the activation, activated = weight · act(projected), and partial sums of
/// ⟨dy W_out, act(projected)⟩: the tile's columns are hidden units, and the thread that has dy W_out of one reads what
/// the forward pass kept of it.
template <std::size_t Lanes, class S, class Gate, class Atom, block_shape Shape> struct backward_hidden {
  using value_type = S;
  static constexpr block_shape shape = Shape;
  ffn_arrays<S> weights;
  ffn_backward_arrays<S> pass;
  Gate gate;

  __device__ void operator()(const bank_rows& bank, const tile_place& place, int stages, S* shared) const {
    const auto sums = [&] {
      const index_t i = place.expert;
      const int rows = static_cast<int>(bank.rows(i)), width = static_cast<int>(bank.width(i)),
                d = static_cast<int>(weights.d);
      k_major_loader<slot_rows<S>, Shape.m, Shape.k, Shape.threads()> left({pass.dy, bank.first(i), rows, d},
                                                                           place.row);
      mn_major_loader<matrix_rows<S>, Shape.n, Shape.k, Shape.threads()> right(
          {weights.out + weights.out_offsets[i], weights.out_strides[i], d, width}, place.column);
      return multiply_tile<Atom, Shape>(left, right, d, stages, shared);
    }();

    const index_t i = place.expert;
    const int m = place.row, n = place.column, rows = static_cast<int>(bank.rows(i)),
              width = static_cast<int>(bank.width(i));
    const auto end = epilogue_of<S>(gate);
    // Of two neighbours in a row; adds their share to `dot`.
    const auto finish = [&](index_t slot, float weight, int unit, const float* pair, float& dot) {
      const int count = width - unit;
      const std::size_t at = slot * Lanes * pass.hidden_stride + static_cast<std::size_t>(unit);
      float d_before[Lanes][2] = {}, after[2] = {};
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        if (u >= count)
          continue;
        const float first = to_float(pass.projected[at + u]), d_after = weight * pair[u];
        if constexpr (Lanes == 2) {
          const float second = to_float(pass.projected[at + width + u]);
          after[u] = end.value(first, second);
          end.backward(first, second, d_after, d_before[0][u], d_before[1][u]);
        } else {
          after[u] = end.value(first);
          d_before[0][u] = d_after * end.derivative(first);
        }
        dot = fmaf(pair[u], after[u], dot);
      }
#pragma unroll
      for (std::size_t l = 0; l < Lanes; ++l)
        store_pair(pass.d_projected + at + l * static_cast<std::size_t>(width), d_before[l][0], d_before[l][1], count);
      store_pair(pass.activated + slot * pass.hidden_stride + unit, weight * after[0], weight * after[1], count);
    };
    sums.for_each([&](int row, int column, const float* left, const float* right) {
      const bool there = m + row < rows;
      const index_t slot = bank.first(i) + static_cast<index_t>(m + row);
      float dot = 0;
      if (there && n + column < width) {
        const float weight = pass.weights.of(slot);
        finish(slot, weight, n + column, left, dot);
        finish(slot, weight, n + column + 8, right, dot);
      }
      if (pass.dots == nullptr)
        return;
      static_assert(dot_columns == 16, "four threads have this much of a row");
      dot += __shfl_xor_sync(whole_warp, dot, 1);
      dot += __shfl_xor_sync(whole_warp, dot, 2);
      if (there && column % 16 == 0 && n + column < width)
        pass.dots[slot * dot_parts(pass.hidden_stride) + static_cast<std::size_t>(n + column) / dot_columns] = dot;
    });
  }
};

/// d_rows = d_projected W_in, and + weight · dy where the expert is residual; some of their columns.
template <std::size_t Lanes, class S, class Atom, block_shape Shape> struct backward_rows {
  using value_type = S;
  static constexpr block_shape shape = Shape;
  ffn_arrays<S> weights;
  ffn_backward_arrays<S> pass;
  bool residual;
  column_range columns;

  __device__ void operator()(const bank_rows& bank, const tile_place& place, int stages, S* shared) const {
    const auto sums = [&] {
      const index_t i = place.expert;
      const int rows = static_cast<int>(bank.rows(i)), terms = static_cast<int>(Lanes * bank.width(i));
      const row_source<S> hidden{pass.d_projected, nullptr, Lanes * pass.hidden_stride};
      k_major_loader<slot_rows<S>, Shape.m, Shape.k, Shape.threads()> left({hidden, bank.first(i), rows, terms},
                                                                           place.row);
      mn_major_loader<matrix_rows<S>, Shape.n, Shape.k, Shape.threads()> right(
          {weights.in + weights.in_offsets[i] + columns.first, weights.in_stride, terms,
           static_cast<int>(columns.count)},
          place.column);
      return multiply_tile<Atom, Shape>(left, right, terms, stages, shared);
    }();

    const index_t i = place.expert;
    const int m = place.row, n = place.column, rows = static_cast<int>(bank.rows(i)), d = static_cast<int>(weights.d);
    const slot_rows<S> straight{pass.dy, bank.first(i), residual ? rows : 0, d};
    sums.for_each_pair([&](int row, int column, const float* pair) {
      const int c = n + column, count = static_cast<int>(columns.count) - c;
      if (m + row >= rows || count <= 0)
        return;
      const S* more = straight.row(m + row);
      const std::size_t slot = bank.first(i) + static_cast<index_t>(m + row);
      float values[2];
#pragma unroll
      for (int u = 0; u < 2; ++u)
        values[u] = more != nullptr && u < count
                        ? fmaf(pass.weights.of(static_cast<index_t>(slot)),
                               to_float(more[columns.first + static_cast<index_t>(c + u)]), pair[u])
                        : pair[u];
      store_pair(pass.d_rows + slot * columns.count + c, values[0], values[1], count);
    });
  }
};

/// gradient += leftᵀ right over the rows of each expert: left is dy and right weight · activated for W_out, left
/// d_projected and right the rows that the experts read for W_in.
template <class S, class Atom, block_shape Shape> struct weight_gradient {
  using value_type = S;
  static constexpr block_shape shape = Shape;
  row_source<S> left, right;
  extent left_columns, right_columns;
  float* gradient;
  const std::size_t* offsets; ///< of experts in `gradient`
  const index_t* strides;     ///< of experts, or null:
  std::size_t stride;         ///< of all

  __device__ void operator()(const bank_rows& bank, const tile_place& place, int stages, S* shared) const {
    const auto columns_of = [&](const extent& columns) {
      return static_cast<int>(columns.of(bank.rows(place.expert), bank.width(place.expert)));
    };
    const auto sums = [&] {
      const index_t i = place.expert;
      const int rows = static_cast<int>(bank.rows(i));
      mn_major_loader<slot_rows<S>, Shape.m, Shape.k, Shape.threads()> a(
          {left, bank.first(i), rows, columns_of(left_columns)}, place.row);
      mn_major_loader<slot_rows<S>, Shape.n, Shape.k, Shape.threads()> b(
          {right, bank.first(i), rows, columns_of(right_columns)}, place.column);
      return multiply_tile<Atom, Shape>(a, b, rows, stages, shared);
    }();

    const index_t i = place.expert;
    const int m = place.row, n = place.column, columns_m = columns_of(left_columns),
              columns_n = columns_of(right_columns);
    float* to = gradient + offsets[i];
    const std::size_t row_stride = strides != nullptr ? strides[i] : stride;
    sums.for_each_pair([&](int row, int column, const float* pair) {
      const int c = n + column, count = columns_n - c;
      if (m + row >= columns_m || count <= 0)
        return;
      float* at = to + static_cast<std::size_t>(m + row) * row_stride + c;
      store_pair(at, at[0] + pair[0], count > 1 ? at[1] + pair[1] : 0.0F, count);
    });
  }
};

/// All products of the backward pass. A gradient has d · width sums whatever the number of rows, so it always has the
/// large tiles.
template <std::size_t Lanes, class Atom, block_shape Shape, block_shape Large, class S, class Gate>
void backward_products(cudaStream_t stream, const launch_target& target, const bank_rows& bank,
                       const ffn_arrays<S>& weights, const ffn_backward_arrays<S>& pass,
                       const ffn_gradient_arrays& gradients, Gate gate, void* workspace, bool residual,
                       const ffn_piece& piece) {
  const column_range columns = piece.of(weights.d);
  const extent d = fixed_size(weights.d), hidden = widths_times(1), projected = widths_times(Lanes);
  const product_sizes sizes[4]{in_tiles_of<Shape>(all_rows, hidden, d),
                               in_tiles_of<Shape>(all_rows, fixed_size(columns.count), projected),
                               in_tiles_of<Large>(d, hidden, all_rows), in_tiles_of<Large>(projected, d, all_rows)};
  schedule_request<4> request{};
  for (std::size_t p = 0; p < 4; ++p) {
    request.sizes[p] = sizes[p];
    request.schedules[p] = schedule_arrays::in(workspace, bank.experts, p);
  }
  launch_schedules(stream, bank, request);
  if (piece.hidden())
    launch_tiles(stream, target, backward_hidden<Lanes, S, Gate, Atom, Shape>{weights, pass, gate}, bank, sizes[0],
                 request.schedules[0], "backward_hidden");
  if (piece.rows())
    launch_tiles(stream, target, backward_rows<Lanes, S, Atom, Shape>{weights, pass, residual, columns}, bank, sizes[1],
                 request.schedules[1], "backward_rows");
  if (!piece.hidden())
    return;
  const row_source<S> activated{pass.activated, nullptr, pass.hidden_stride},
      d_projected{pass.d_projected, nullptr, Lanes * pass.hidden_stride};
  using gradient = weight_gradient<S, Atom, Large>;
  if (gradients.out != nullptr)
    launch_tiles(stream, target,
                 gradient{pass.dy, activated, d, hidden, gradients.out, weights.out_offsets, weights.out_strides, 0},
                 bank, sizes[2], request.schedules[2], "weight_gradient");
  if (gradients.in != nullptr)
    launch_tiles(
        stream, target,
        gradient{d_projected, pass.x, projected, d, gradients.in, weights.in_offsets, nullptr, weights.in_stride}, bank,
        sizes[3], request.schedules[3], "weight_gradient");
  if (gradients.out_bias != nullptr)
    add_column_sums(stream, bank, pass.dy, pass.weights, d, weights.d, gradients.out_bias, nullptr, weights.d);
  if (gradients.in_bias != nullptr)
    add_column_sums(stream, bank, d_projected, slot_weights{}, projected, Lanes * pass.hidden_stride, gradients.in_bias,
                    weights.in_bias_offsets, 0);
}

template <std::size_t Lanes, class S, class Gate>
void ffn_backward(cudaStream_t stream, const launch_target& target, const plan_arrays& plan,
                  const ffn_arrays<S>& weights, const ffn_backward_arrays<S>& pass,
                  const ffn_gradient_arrays& gradients, Gate gate, void* workspace, const ffn_options& options,
                  const ffn_piece& piece) {
  const bank_rows bank{plan.offsets + weights.first_expert, weights.widths, weights.experts};
  with_atom<S>(options.math, [&]<class Atom, block_shapes Shapes>() {
    const std::size_t columns = piece.narrowest(weights.d, pass.hidden_stride);
    with_tiles<Shapes>(options, target, plan, columns, [&]<block_shape Shape>() {
      backward_products<Lanes, Atom, Shape, Shapes.many>(stream, target, bank, weights, pass, gradients, gate,
                                                         workspace, options.residual, piece);
    });
  });
  if (pass.d_weights != nullptr && piece.hidden())
    add_dots(stream, target, bank, plan.capacity, pass, weights.out_bias, options.residual, weights.d);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
