// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/experts/ffn_weights.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>

namespace hmoe::experts {

/// Weights of feed-forward experts that are handed out as floats, some rows at a time, wherever they are: in memory, or
/// in a mapped file in a type of its own. Packing (backends::simd::pack) reads them so, and never has the floats of
/// more than a panel. Expert e has S::lanes matrices m = 0 … lanes − 1 that read the token, [width(e) × d_model] (gate
/// and up of a GLU, up alone of an MLP), and the output matrix m = lanes, [d_model × width(e)].
///   read(e, m, first, to)    rows [first, first + to.rows()) of matrix m to `to`, which has all columns
///   read_bias(e, m, first, to)   the bias of those rows, to a matrix of one column; only where has_biases()
/// Both may be called in any order, any number of times.
template <class S>
concept weight_source = requires(const S& source, std::size_t i, matrix_view<float> to) {
  { S::lanes } -> std::convertible_to<std::size_t>;
  { source.size() } -> std::convertible_to<std::size_t>;
  { source.d_model() } -> std::convertible_to<std::size_t>;
  { source.width(i) } -> std::convertible_to<std::size_t>;
  { source.has_biases() } -> std::convertible_to<bool>;
  source.read(i, i, i, to);
  source.read_bias(i, i, i, to);
};

/// A source that has some matrices in blocks of Block::size weights (core/quantized_block.hpp, core/fp8_block.hpp), so
/// that a format of such blocks takes scales and codes over as they are.
///   has_blocks<Block>(e, m)           whether matrix m of expert e is in such blocks
///   read_blocks(e, m, first, rows, to)   those of the rows [first, first + rows), row by row; to: ⌈columns /
///                                     Block::size⌉ for each, with weights of 0 behind the last column
template <class S, class Block>
concept block_weight_source = weight_source<S> && requires(const S& source, std::size_t i, Block* to) {
  { source.template has_blocks<Block>(i, i) } -> std::convertible_to<bool>;
  source.read_blocks(i, i, i, i, to);
};

/// The weights of a bank as a source. The bank's must outlive this.
template <std::size_t Lanes> class weights_in_memory {
public:
  static constexpr std::size_t lanes = Lanes;

  explicit weights_in_memory(const ffn_weights<float, Lanes>& from) noexcept : from_(&from) {}

  [[nodiscard]] std::size_t size() const noexcept { return from_->size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return from_->d_model(); }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept { return from_->width(e); }
  [[nodiscard]] bool has_biases() const noexcept { return from_->has_biases(); }
  void read(std::size_t e, std::size_t m, std::size_t first, matrix_view<float> to) const noexcept {
    const matrix_view<const float> rows =
        (m < Lanes ? from_->lane(e, m) : from_->output(e)).row_block(first, to.rows());
    for (std::size_t r = 0; r < to.rows(); ++r)
      std::ranges::copy(rows.row(r), to.row(r).begin());
  }
  void read_bias(std::size_t e, std::size_t m, std::size_t first, matrix_view<float> to) const noexcept {
    const matrix_view<const float> bias = m < Lanes ? from_->lane_bias(e, m) : from_->output_bias(e);
    for (std::size_t r = 0; r < to.rows(); ++r)
      to(r, 0) = bias(0, first + r);
  }

private:
  const ffn_weights<float, Lanes>* from_;
};

} // namespace hmoe::experts

#include <hmoe/core/macros_on.hpp>
