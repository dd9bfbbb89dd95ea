// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/weight_cell.hpp>
#include <hmoe/core/blocks.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/quantized_block.hpp>
#include <hmoe/core/scalar.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <limits>
#include <string_view>

/// How float weights are stored on the device: rows of values of S, or cells of blocks of 32.
namespace hmoe::backends::cuda_detail {

/// What activations of a device layer are stored in.
template <class S>
concept device_scalar = std::same_as<S, float> || std::same_as<S, bfloat16> || std::same_as<S, half>;

/// The largest weight that W holds.
template <class W> [[nodiscard]] constexpr float largest_weight() noexcept {
  if constexpr (weight_block<W>)
    return largest_quantized_weight;
  else if constexpr (std::same_as<W, half>)
    return 65504.0F;
  else if constexpr (std::same_as<W, bfloat16>)
    return 0x1.FEp127F;
  else
    return std::numeric_limits<float>::max();
}

/// Elements of what is stored from one row of `values` weights to the next, or with cells from 16 rows to the next 16:
/// rows of scalars start at multiples of 16 bytes.
template <class W> [[nodiscard]] constexpr std::size_t row_elements(std::size_t values) noexcept {
  if constexpr (weight_block<W>)
    return hmoe::blocks_of(values, cell_terms);
  else
    return round_up(values, 16 / sizeof(W));
}
/// How many of those rows (or groups of 16) a matrix of `rows` rows in each of `lanes` lanes has.
template <class W> [[nodiscard]] constexpr std::size_t stored_rows(std::size_t rows, std::size_t lanes) noexcept {
  if constexpr (weight_block<W>)
    return hmoe::blocks_of(rows, cell_rows / lanes);
  else
    return lanes * rows;
}

/// Writes one row: the weights, and zeros behind them, as row_elements(from.size()) scalars or as many blocks.
template <class W> void store_row(vector_view<const float> from, W* to, std::string_view name) {
  for (const float weight : from)
    require(std::abs(weight) <= largest_weight<W>(), name, " is ", weight, "; this format holds finite weights up to ",
            largest_weight<W>());
  if constexpr (weight_block<W>) {
    for (std::size_t first = 0; first < from.size(); first += quantized_block_size) {
      float values[quantized_block_size] = {};
      std::copy_n(from.data() + first, std::min(quantized_block_size, from.size() - first), values);
      *to++ = W::quantize(values);
    }
  } else {
    for (std::size_t i = 0; i < from.size(); ++i)
      to[i] = static_cast<W>(from[i]);
    std::fill(to + from.size(), to + row_elements<W>(from.size()), W{});
  }
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
