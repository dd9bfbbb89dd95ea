// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/cell_loader.cuh>
#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/epilogue.cuh>
#include <hmoe/backends/cuda/schedule.cuh>
#include <hmoe/backends/cuda/tile_product.cuh>
#include <hmoe/backends/cuda/tile_selection.cuh>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace hmoe::backends::cuda_detail {

/// activated = act(x W_inᵀ + b): the tile's columns are rows of W_in with the lanes interleaved, so that a thread has
/// gate and up of the same hidden units.
template <std::size_t Lanes, class S, class Weight, class Gate, class Atom, block_shape Shape> struct project_in {
  using value_type = S;
  static constexpr block_shape shape = Shape;
  ffn_arrays<Weight> weights;
  ffn_forward_arrays<S> pass;
  Gate gate;

  __device__ void operator()(const bank_rows& bank, const tile_place& place, int stages, S* shared) const {
    using weight_rows = lane_rows<Lanes, stored_weight<Weight>>;
    const auto sums = [&] {
      const index_t i = place.expert;
      const int rows = static_cast<int>(bank.rows(i)), width = static_cast<int>(bank.width(i)),
                d = static_cast<int>(weights.d);
      k_major_loader<slot_rows<S>, Shape.m, Shape.k, Shape.threads()> left(slot_rows<S>{pass.x, bank.first(i), rows, d},
                                                                           place.row);
      weight_loader<S, weight_rows, Shape.n, Shape.k, Shape.threads()> right(
          weight_rows{weights.in + weights.in_offsets[i], weights.in_stride, width, d}, place.column);
      return multiply_tile<Atom, Shape>(left, right, d, stages, shared);
    }();

    const index_t i = place.expert;
    const int m = place.row, n = place.column, rows = static_cast<int>(bank.rows(i)),
              width = static_cast<int>(bank.width(i));
    const float* bias = weights.in_bias != nullptr ? weights.in_bias + weights.in_bias_offsets[i] : nullptr;
    const auto end = epilogue_of<S>(gate);
    const auto biased = [&](float sum, int index, bool there) {
      return bias != nullptr && there ? sum + bias[index] : sum;
    };
    const auto write = [&](int row, int unit, const float* first, const float* second) {
      const int count = width - unit;
      if (m + row >= rows || count <= 0)
        return;
      const std::size_t slot = bank.first(i) + static_cast<index_t>(m + row);
      float before[Lanes][2], after[2];
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        before[0][u] = biased(first[u], unit + u, u < count);
        if constexpr (Lanes == 2) {
          before[1][u] = biased(second[u], width + unit + u, u < count);
          after[u] = end.value(before[0][u], before[1][u]);
        } else {
          after[u] = end.value(before[0][u]);
        }
      }
      store_pair(pass.activated + slot * pass.hidden_stride + unit, after[0], after[1], count);
      if (pass.projected != nullptr)
#pragma unroll
        for (std::size_t l = 0; l < Lanes; ++l)
          store_pair(pass.projected + slot * Lanes * pass.hidden_stride + l * static_cast<std::size_t>(width) + unit,
                     before[l][0], before[l][1], count);
    };
    if constexpr (Lanes == 2)
      sums.for_each([&](int row, int column, const float* gates, const float* ups) {
        write(row, weight_rows::unit_of(n + column), gates, ups);
      });
    else
      sums.for_each_pair([&](int row, int column, const float* pair) { write(row, n + column, pair, pair); });
  }
};

/// outputs = activated W_outᵀ + b, and + x where the expert is residual; some of their columns.
template <class S, class Weight, class Atom, block_shape Shape> struct project_out {
  using value_type = S;
  static constexpr block_shape shape = Shape;
  ffn_arrays<Weight> weights;
  ffn_forward_arrays<S> pass;
  bool residual;
  column_range columns;

  __device__ void operator()(const bank_rows& bank, const tile_place& place, int stages, S* shared) const {
    const auto sums = [&] {
      const index_t i = place.expert;
      const int rows = static_cast<int>(bank.rows(i)), width = static_cast<int>(bank.width(i));
      const row_source<S> hidden{pass.activated, nullptr, pass.hidden_stride};
      k_major_loader<slot_rows<S>, Shape.m, Shape.k, Shape.threads()> left(
          slot_rows<S>{hidden, bank.first(i), rows, width}, place.row);
      using weight_rows = matrix_rows<stored_weight<Weight>>;
      weight_loader<S, weight_rows, Shape.n, Shape.k, Shape.threads()> right(
          weight_rows{weights.out + weights.out_offsets[i] +
                          std::size_t{columns.first} / stored_together<Weight> * weights.out_strides[i],
                      weights.out_strides[i], static_cast<int>(columns.count), width},
          place.column);
      return multiply_tile<Atom, Shape>(left, right, width, stages, shared);
    }();

    const index_t i = place.expert;
    const int m = place.row, n = place.column, rows = static_cast<int>(bank.rows(i)), d = static_cast<int>(weights.d);
    const float* bias = weights.out_bias != nullptr
                            ? weights.out_bias + static_cast<std::size_t>(i) * weights.d + columns.first
                            : nullptr;
    const slot_rows<S> inputs{pass.x, bank.first(i), residual ? rows : 0, d};
    sums.for_each_pair([&](int row, int column, const float* pair) {
      const int c = n + column, count = static_cast<int>(columns.count) - c;
      if (m + row >= rows || count <= 0)
        return;
      const S* input = inputs.row(m + row);
      float values[2];
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        values[u] = pair[u];
        if (bias != nullptr && u < count)
          values[u] += bias[c + u];
        if (input != nullptr && u < count)
          values[u] += to_float(input[columns.first + static_cast<index_t>(c + u)]);
      }
      const std::size_t slot = bank.first(i) + static_cast<index_t>(m + row);
      store_pair(pass.outputs + slot * columns.count + c, values[0], values[1], count);
    });
  }
};

/// Both products with one shape of tiles.
template <std::size_t Lanes, class Atom, block_shape Shape, class S, class Weight, class Gate>
void forward_products(cudaStream_t stream, const launch_target& target, const bank_rows& bank,
                      const ffn_arrays<Weight>& weights, const ffn_forward_arrays<S>& pass, Gate gate, void* workspace,
                      bool residual, const ffn_piece& piece) {
  const column_range columns = piece.of(weights.d);
  const product_sizes in = in_tiles_of<Shape>(all_rows, widths_times(Lanes), fixed_size(weights.d));
  const product_sizes out = in_tiles_of<Shape>(all_rows, fixed_size(columns.count), widths_times(1));
  const schedule_arrays in_schedule = schedule_arrays::in(workspace, bank.experts, 0),
                        out_schedule = schedule_arrays::in(workspace, bank.experts, 1);
  launch_schedules(stream, bank, schedule_request<2>{{in, out}, {in_schedule, out_schedule}});
  if (piece.hidden())
    launch_tiles(stream, target, project_in<Lanes, S, Weight, Gate, Atom, Shape>{weights, pass, gate}, bank, in,
                 in_schedule, "project_in");
  if (piece.rows())
    launch_tiles(stream, target, project_out<S, Weight, Atom, Shape>{weights, pass, residual, columns}, bank, out,
                 out_schedule, "project_out");
}

template <std::size_t Lanes, class S, class Weight, class Gate>
void ffn_forward(cudaStream_t stream, const launch_target& target, const plan_arrays& plan,
                 const ffn_arrays<Weight>& weights, const ffn_forward_arrays<S>& pass, Gate gate, void* workspace,
                 const ffn_options& options, const ffn_piece& piece) {
  const bank_rows bank{plan.offsets + weights.first_expert, weights.widths, weights.experts};
  with_atom<S>(options.math, [&]<class Atom, block_shapes Shapes>() {
    // Decoding is the limit of quantised weights, and costs a warp the same in the largest tiles.
    constexpr block_shapes shapes =
        std::is_same_v<S, Weight> ? Shapes : block_shapes{Shapes.many, Shapes.few, Shapes.many};
    const std::size_t columns = piece.narrowest(weights.d, pass.hidden_stride);
    with_tiles<shapes>(options, target, plan, columns, [&]<block_shape Shape>() {
      forward_products<Lanes, Atom, Shape>(stream, target, bank, weights, pass, gate, workspace, options.residual,
                                           piece);
    });
  });
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
