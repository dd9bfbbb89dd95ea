// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/blocks.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/fp8_block.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/quantized_block.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/small_floats.hpp>
#include <hmoe/io/stored_blocks.hpp>
#include <hmoe/io/stored_tensor.hpp>
#include <hmoe/io/tensor_type.hpp>
#include <hmoe/io/tensor_values.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

namespace hmoe::io {

/// Which of the rows of what a file has belong to a matrix: first, first + step, …, `count` of them (all that there
/// are, unless given). Fused gate and up projections are {0, 1, h} and {h, 1, h}, or interleaved {0, 2} and {1, 2}.
struct row_choice {
  static constexpr std::size_t all = static_cast<std::size_t>(-1);
  std::size_t first = 0, step = 1, count = all;
};

/// A matrix of a file, handed out as floats some rows at a time, whatever way the file has it: as it is, transposed, or
/// with scales in a tensor of their own. Where nothing else is said values are converted as stored_tensor::read does.
/// Works on the file's bytes, which must outlive it. Constructors throw hmoe::error where the tensors do not fit one
/// another or the choice of rows.
class stored_matrix {
public:
  /// A tensor whose last dimension is the columns.
  explicit stored_matrix(stored_tensor values, row_choice rows = {})
      : stored_matrix(form::plain, std::move(values), std::nullopt, rows) {
    const tensor_type_traits& traits = traits_of(values_.type());
    require(cols_ % traits.block_values == 0, where(), ", whose rows do not fill blocks of ", traits.block_values);
  }
  /// A tensor that has this matrix transposed: its last dimension is the rows.
  [[nodiscard]] static stored_matrix transposed(stored_tensor values, row_choice rows = {}) {
    stored_matrix result(form::transposed, std::move(values), std::nullopt, rows);
    result.require_single_values();
    return result;
  }
  /// A vector as a matrix of one column: the biases of the rows.
  [[nodiscard]] static stored_matrix column(stored_tensor values, row_choice rows = {}) {
    stored_matrix result(form::column, std::move(values), std::nullopt, rows);
    result.require_single_values();
    return result;
  }
  /// Values with a scale for each block of block × block of them: w(i, k) = values(i, k) · scales(i/block, k/block),
  /// the product in float. DeepSeek-V3's checkpoints have F8_E4M3 values and F32 scales, `weight_scale_inv`, with
  /// blocks of 128.
  [[nodiscard]] static stored_matrix scaled(stored_tensor values, stored_tensor scales, row_choice rows = {},
                                            std::size_t block = 128) {
    require(block >= 1, "the blocks that share a scale have ", block, " rows");
    const auto blocks = [&](std::size_t n) { return n / block + (n % block != 0 ? 1 : 0); };
    scales.require_shape(blocks(values.rows()), blocks(values.cols()));
    stored_matrix result(form::scaled, std::move(values), std::move(scales), rows);
    result.require_single_values();
    result.require_single_values(*result.scales_);
    result.block_ = block;
    return result;
  }
  /// OCP MXFP4 in two tensors of bytes, as gpt-oss has it: `blocks` [… × columns/32 × 16] with values 2i and 2i + 1 in
  /// the lower and the upper half of byte i, and `scales` [… × columns/32], the exponents biased by 127.
  [[nodiscard]] static stored_matrix mxfp4(stored_tensor blocks, stored_tensor scales, row_choice rows = {}) {
    require(blocks.type() == tensor_type::u8 && blocks.cols() == bytes_of_codes && blocks.shape().size() >= 2,
            blocks.file(), ": tensor ", in_quotes(blocks.name()), " is ", blocks.description(),
            ", needed are MXFP4 codes, U8 [..., 16]");
    require(scales.type() == tensor_type::u8 || scales.type() == tensor_type::f8_e8m0, scales.file(), ": tensor ",
            in_quotes(scales.name()), " is ", scales.description(), ", needed are exponents, U8 or F8_E8M0");
    require(scales.size() == blocks.rows(), scales.file(), ": tensor ", in_quotes(scales.name()), " is ",
            scales.description(), ", needed are exponents of ", blocks.rows(), " blocks");
    return {form::mxfp4, std::move(blocks), std::move(scales), rows};
  }

  [[nodiscard]] std::size_t rows() const noexcept { return choice_.count; }
  [[nodiscard]] std::size_t cols() const noexcept { return cols_; }

  /// Rows [first, first + to.rows()). hmoe::error where there are no such rows, or `to` has other columns.
  void read(std::size_t first, matrix_view<float> to) const {
    require_rows(first, to.rows());
    require(to.cols() == cols_, where(), " has ", cols_, " columns as a matrix, asked for are ", to.cols());
    if (form_ == form::transposed)
      return read_columns(first, to);
    for (std::size_t r = 0; r < to.rows(); ++r)
      read_row(row(first + r), to.row(r).data());
  }

  /// Whether the rows are stored in blocks with the values of Block, which read_blocks hands out as they are.
  template <class Block> [[nodiscard]] bool has_blocks() const noexcept {
    if constexpr (std::same_as<Block, fp8_block>)
      return form_ == form::scaled && block_ == fp8_block::size && values_.type() == tensor_type::f8_e4m3;
    else
      return form_ == form::mxfp4 ? std::same_as<Block, mxfp4_block>
                                  : form_ == form::plain && is_stored_as<Block>(values_.type());
  }
  /// The blocks of rows [first, first + count), ⌈cols()/Block::size⌉ for each; hmoe::error unless has_blocks<Block>().
  template <class Block> void read_blocks(std::size_t first, std::size_t count, Block* to) const {
    require(has_blocks<Block>(), where(), ", which has no such blocks");
    require_rows(first, count);
    const std::size_t blocks = blocks_of(cols_, Block::size);
    for (std::size_t r = first; r < first + count; ++r)
      for (std::size_t b = 0; b < blocks; ++b, ++to)
        if constexpr (std::same_as<Block, fp8_block>)
          *to = fp8_at(row(r), b);
        else if (form_ == form::plain)
          *to =
              block_from<Block>(values_.bytes().data() + (row(r) * blocks + b) * traits_of(values_.type()).block_bytes);
        else if constexpr (std::same_as<Block, mxfp4_block>)
          *to = mxfp4_at(row(r) * blocks + b);
  }

private:
  enum class form : std::uint8_t { plain, transposed, column, scaled, mxfp4 };
  static constexpr std::size_t bytes_of_codes = quantized_block_size / 2;

  stored_matrix(form how, stored_tensor values, std::optional<stored_tensor> scales, row_choice rows)
      : form_(how), values_(std::move(values)), scales_(std::move(scales)), choice_(rows) {
    std::size_t stored_rows = values_.rows();
    cols_ = values_.cols();
    if (how == form::transposed) {
      std::swap(stored_rows, cols_);
    } else if (how == form::column) {
      stored_rows = values_.size();
      cols_ = 1;
    } else if (how == form::mxfp4) { // [… × columns/32 × 16]
      const std::size_t blocks = values_.shape()[values_.shape().size() - 2];
      stored_rows = blocks == 0 ? 0 : stored_rows / blocks;
      cols_ = blocks * quantized_block_size;
    }
    require(choice_.step >= 1, where(), ": of its rows each ", choice_.step, "th is asked for");
    const std::size_t there = choice_.first >= stored_rows ? 0 : (stored_rows - choice_.first - 1) / choice_.step + 1;
    if (choice_.count == row_choice::all)
      choice_.count = there;
    require(choice_.count <= there, where(), " has ", stored_rows, " rows as a matrix, asked for are ", choice_.count,
            " from row ", choice_.first, " on, ", choice_.step, " apart");
  }

  [[nodiscard]] std::size_t row(std::size_t r) const noexcept { return choice_.first + r * choice_.step; }
  [[nodiscard]] std::string where() const {
    return values_.file() + ": tensor " + in_quotes(values_.name()) + " is " + values_.description();
  }
  void require_rows(std::size_t first, std::size_t count) const {
    require(first <= rows() && count <= rows() - first, where(), " with ", rows(), " rows, asked for are ", count,
            " from row ", first, " on");
  }
  void require_single_values() const { require_single_values(values_); }
  static void require_single_values(const stored_tensor& tensor) {
    require(traits_of(tensor.type()).block_values == 1, tensor.file(), ": tensor ", in_quotes(tensor.name()), " is ",
            tensor.description(), ", needed is a type with an address for each value");
  }

  /// Stored row r.
  void read_row(std::size_t r, float* to) const {
    const tensor_type_traits& traits = traits_of(values_.type());
    if (form_ == form::mxfp4) {
      for (std::size_t b = 0; b < cols_ / quantized_block_size; ++b, to += quantized_block_size) {
        const mxfp4_block block = mxfp4_at(r * (cols_ / quantized_block_size) + b);
        const float scale = float_of_e8m0(block.exponent);
        for (std::size_t i = 0; i < quantized_block_size; ++i)
          to[i] = scale * float_of_e2m1(block.code(i));
      }
      return;
    }
    convert_values(values_.type(), values_.bytes().data() + r * (cols_ / traits.block_values * traits.block_bytes),
                   cols_, to);
    if (form_ != form::scaled)
      return;
    for (std::size_t k = 0; k < cols_; k += block_) {
      const float scale = scale_at(r, k);
      for (std::size_t i = k; i < std::min(cols_, k + block_); ++i)
        to[i] *= scale;
    }
  }
  /// Rows of the matrix that are columns of the tensor: of each of its rows a piece that has some of them.
  void read_columns(std::size_t first, matrix_view<float> to) const {
    constexpr std::size_t most = 256;
    const std::size_t bytes = traits_of(values_.type()).block_bytes;
    const std::size_t together = std::max<std::size_t>(1, most / choice_.step);
    for (std::size_t i = 0; i < to.rows(); i += together) {
      const std::size_t count = std::min(together, to.rows() - i), span = (count - 1) * choice_.step + 1;
      for (std::size_t k = 0; k < cols_; ++k) {
        std::array<float, most> piece;
        convert_values(values_.type(), values_.bytes().data() + (k * values_.cols() + row(first + i)) * bytes, span,
                       piece.data());
        for (std::size_t r = 0; r < count; ++r)
          to(i + r, k) = piece[r * choice_.step];
      }
    }
  }
  /// The scale of value k of stored row r.
  [[nodiscard]] float scale_at(std::size_t r, std::size_t k) const {
    const std::size_t place = r / block_ * scales_->cols() + k / block_;
    float scale = 0;
    convert_values(scales_->type(), scales_->bytes().data() + place * traits_of(scales_->type()).block_bytes, 1,
                   &scale);
    return scale;
  }
  /// Block b of stored row r.
  [[nodiscard]] fp8_block fp8_at(std::size_t r, std::size_t b) const {
    const std::size_t first = b * fp8_block::size;
    fp8_block block{scale_at(r, first), {}};
    std::memcpy(block.codes, values_.bytes().data() + r * cols_ + first, std::min(fp8_block::size, cols_ - first));
    return block;
  }
  [[nodiscard]] mxfp4_block mxfp4_at(std::size_t b) const noexcept {
    mxfp4_block block{static_cast<std::uint8_t>(scales_->bytes()[b]), {}};
    std::memcpy(block.codes.bytes, values_.bytes().data() + b * bytes_of_codes, bytes_of_codes);
    return block;
  }

  form form_;
  stored_tensor values_;
  std::optional<stored_tensor> scales_;
  row_choice choice_;
  std::size_t cols_ = 0, block_ = 0;
};

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
