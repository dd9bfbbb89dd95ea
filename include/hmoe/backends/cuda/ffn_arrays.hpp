// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/tuning.hpp>
#include <hmoe/backends/cuda/weight_cell.hpp>
#include <hmoe/core/config.hpp>
#include <hmoe/core/scalar.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>

/// What the grouped expert kernels read and write. S is the type of activations: float, hmoe::bfloat16 or hmoe::half.
/// Slots are those of the plan over all experts of the layer; every bank fills its own slots of the shared arrays.
namespace hmoe::backends::cuda_detail {

/// How products of float operands are computed: as they are, or rounded to the 10 fraction bits of tf32 on tensor
/// cores. 16-bit operands always go to tensor cores. All sums are in float.
enum class float_math { f32, tf32 };

struct ffn_options {
  float_math math = float_math::f32;
  bool residual = false; ///< the expert is x + expert(x): hmoe::experts::low_rank_bank, with Lanes = 1 and linear
  tile_size tiles = tile_size::automatic;
};

/// What sizes a launch.
struct launch_target {
  int multiprocessors;    ///< of the device
  int compute_capability; ///< 10 · major + minor
};

/// The weights of a bank of two-layer feed-forward experts (hmoe::experts::ffn_weights), in the order of checkpoints.
/// Weight is S, or one of the blocks of hmoe/core/quantized_block.hpp; offsets and strides count in what is stored.
/// Where Weight is S, rows that start at multiples of 16 bytes are read in packets, others value by value, and what is
/// behind the end of a row is never read. Cells stand for "row" with 16 of them: of W_in 16 / Lanes hidden units, each
/// lane's in turn; what they have more than the matrix is zero. Biases are null where there are none.
template <class Weight> struct ffn_arrays {
  const stored_weight<Weight>* in;    ///< expert i, row r: in + in_offsets[i] + r · in_stride; Lanes·width rows of d
  const stored_weight<Weight>* out;   ///< expert i, row r: out + out_offsets[i] + r · out_strides[i]; d rows of width
  const float* in_bias;               ///< expert i: in_bias + in_bias_offsets[i], Lanes·width values
  const float* out_bias;              ///< [experts × d]
  const std::size_t* in_offsets;      ///< [experts]
  const std::size_t* out_offsets;     ///< [experts]
  const std::size_t* in_bias_offsets; ///< [experts]
  const index_t* out_strides;         ///< [experts]
  const index_t* widths;              ///< [experts]
  index_t experts;                    ///< of this bank
  index_t first_expert;               ///< id of the bank's first expert in the layer
  index_t d, in_stride;
};

/// Gradients in float at the offsets and strides of the weights; kernels add to them. Those that are null are left out.
struct ffn_gradient_arrays {
  float *in, *out, *in_bias, *out_bias;
};

/// Rows of d values by slot: row index[slot] of `rows`, or row `slot` where index is null. A row of no_index is zero.
template <class S> struct row_source {
  const S* rows;
  const index_t* index; ///< plan_arrays::tokens, or null
  std::size_t stride;
};

/// Columns first … first + count − 1 of rows of d values. Arrays of such pieces have rows of `count` values.
struct column_range {
  index_t first, count;
};

/// Rows of d floats by slot (outputs of experts, gradients of what they read) are computed and added up a piece of
/// their columns at a time, so that no pass needs all [entries × d] at once. No sum runs along columns, so pieces
/// change no bit.
struct row_pieces {
  /// Columns of a piece are a multiple of these, which are a whole number of tiles.
  static constexpr std::size_t unit = 128;

  std::size_t d, columns; ///< of a row, of a piece

  /// As many columns at a time as `most` floats hold for `entries` rows, at least a unit.
  row_pieces(std::size_t entries, std::size_t row, std::size_t most) noexcept
      : d(row), columns(entries * row <= most ? row : std::min(row, std::max(unit, most / entries / unit * unit))) {}
  row_pieces() = default;

  /// Floats that pieces take; more entries never take less.
  [[nodiscard]] static std::size_t floats(std::size_t entries, std::size_t row, std::size_t most) noexcept {
    return std::min(entries * row, std::max(most, entries * unit));
  }
  template <class F> void for_each(const F& f) const {
    for (std::size_t first = 0; first < d; first += columns)
      f(column_range{static_cast<index_t>(first), static_cast<index_t>(std::min(columns, d - first))});
  }
};

/// Which part of a pass over a bank is to be done, where rows of d values are made in pieces: what does not depend on
/// the piece, then each piece.
enum class ffn_part { all, hidden, rows };
struct ffn_piece {
  ffn_part part = ffn_part::all;
  column_range columns{}; ///< of outputs and d_rows; count 0: all d

  [[nodiscard]] bool hidden() const noexcept { return part != ffn_part::rows; }
  [[nodiscard]] bool rows() const noexcept { return part != ffn_part::hidden; }
  [[nodiscard]] column_range of(index_t d) const noexcept { return columns.count == 0 ? column_range{0, d} : columns; }
  /// Columns of the narrowest product of the part, where hidden rows have `hidden_row` values.
  [[nodiscard]] std::size_t narrowest(index_t d, std::size_t hidden_row) const noexcept {
    return rows() ? std::min<std::size_t>(of(d).count, hidden() ? hidden_row : d) : hidden_row;
  }
};

/// A forward pass. A hidden row is as wide as the widest expert, rounded up to a multiple of 16 bytes.
template <class S> struct ffn_forward_arrays {
  row_source<S> x;
  S* activated;   ///< [capacity × hidden_stride] what the second projection reads
  S* projected;   ///< [capacity × Lanes·hidden_stride] before the activation, row [g | u] (2·width values); null: not
                  ///< kept
  float* outputs; ///< [capacity × columns of the piece] without the gate weight
  std::size_t hidden_stride;
};

/// The gate weight of a slot: weights[entries[slot]], or 1 where `weights` is null.
struct slot_weights {
  const float* weights;
  const index_t* entries; ///< plan_arrays::entries

  [[nodiscard]] HMOE_HOST_DEVICE float of(index_t slot) const {
    return weights == nullptr ? 1 : weights[entries[slot]];
  }
};

/// Hidden units of a row whose share of ∂L/∂weight is one partial sum: what four threads have of every tile, so that
/// partial sums are the same for all shapes of tiles.
inline constexpr std::size_t dot_columns = 16;
[[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t dot_parts(std::size_t hidden_stride) noexcept {
  return (hidden_stride + dot_columns - 1) / dot_columns;
}

/// A backward pass over what a forward pass has kept. The gradient of a gate weight is ⟨dy, expert(x)⟩ =
/// ⟨dy W_out, activated⟩ + ⟨dy, b_out⟩ (+ ⟨dy, x⟩ where the expert is residual), so the outputs need not be kept.
template <class S> struct ffn_backward_arrays {
  row_source<S> x, dy;  ///< what the experts read, ∂L/∂(weight · expert(x))
  slot_weights weights; ///< of the outputs
  const S* projected;   ///< of the forward pass
  S* d_projected;       ///< [capacity × Lanes·hidden_stride] scratch: ∂L/∂projected
  S* activated;         ///< [capacity × hidden_stride] scratch: weight · activated
  float* dots;          ///< [capacity × dot_parts(hidden_stride)] scratch: partial sums of ⟨dy W_out, activated⟩
  float* d_weights;     ///< [capacity] by entry, ∂L/∂weight; null: not wanted, as `dots` then
  float* d_rows;        ///< [capacity × columns of the piece] ∂L/∂(row that the expert read)
  std::size_t hidden_stride;
};

/// Device memory (aligned to 256 bytes) that a forward or a backward pass over a bank uses while it runs.
[[nodiscard]] constexpr std::size_t ffn_workspace_bytes(std::size_t experts) noexcept {
  return 4 * (((2 * experts + 2) * sizeof(index_t) + 255) / 256 * 256); // four schedules
}

/// Values of S between hidden rows of experts up to `widest`.
template <class S> [[nodiscard]] constexpr std::size_t ffn_hidden_stride(std::size_t widest) noexcept {
  constexpr std::size_t unit = 16 / sizeof(S);
  return (widest + unit - 1) / unit * unit;
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
