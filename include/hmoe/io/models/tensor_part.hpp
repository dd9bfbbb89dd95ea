// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/blocks.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/quantized_block.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/stored_matrix.hpp>
#include <hmoe/io/stored_tensor.hpp>
#include <hmoe/io/tensor_type.hpp>

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

namespace hmoe::io::models {

/// A matrix of the library within a tensor of a file: the tensor's name and the shape that it must have; the part of it
/// (expert e of E, along the first dimension); and the rows of that part, or its columns where the file has the
/// transpose.
struct tensor_part {
  std::string name;
  std::vector<std::size_t> shape{};
  std::size_t part = 0, parts = 1;
  row_choice rows{};
  bool transposed = false;
};

/// A weight tensor of a file, in one of the forms that checkpoints have: a floating-point tensor; MXFP4 as gpt-oss
/// ships it (name_blocks and name_scales, see stored_matrix::mxfp4); FP8 as DeepSeek-V3 ships it (with name_scale_inv,
/// see stored_matrix::scaled).
class weight_tensor {
public:
  /// The tensor of that name in `file`, which has find(name) → const stored_tensor*; found() tells whether there is
  /// one. hmoe::error where shape or type are others than the shape given, the dimensions of the values.
  template <class File>
  weight_tensor(const File& file, const std::string& name, const std::vector<std::size_t>& shape) {
    values_ = file.find(name);
    if (values_ != nullptr) {
      scales_ = file.find(name + "_scale_inv");
      encoding_ = scales_ == nullptr ? encoding::plain : encoding::squares;
    } else if ((values_ = file.find(name + "_blocks")) != nullptr) {
      encoding_ = encoding::mxfp4;
      scales_ = file.find(name + "_scales");
      require(scales_ != nullptr, values_->file(), " has the tensor ", in_quotes(values_->name()), " and lacks ",
              in_quotes(name + "_scales"));
    } else {
      return;
    }
    check(shape);
  }

  [[nodiscard]] bool found() const noexcept { return values_ != nullptr; }
  /// The names of the tensors that it is made of.
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> result{values_->name()};
    if (scales_ != nullptr)
      result.push_back(scales_->name());
    return result;
  }
  /// A part of it. hmoe::error where it is transposed and not plain, or has no such rows.
  [[nodiscard]] stored_matrix matrix(const tensor_part& part) const {
    const std::size_t rows = rows_ / part.parts;
    if (part.transposed) {
      require(encoding_ == encoding::plain, where(*values_),
              " has scales, and the matrix is transposed: that is read "
              "of tensors without scales only");
      const std::span<const std::byte> bytes = values_->bytes();
      const std::size_t size = bytes.size() / part.parts;
      return stored_matrix::transposed(
          {values_->file(), values_->name(), values_->type(), {rows, cols_}, bytes.subspan(part.part * size, size)},
          part.rows);
    }
    row_choice chosen = part.rows;
    if (chosen.count == row_choice::all)
      chosen.count = blocks_of(rows - std::min(chosen.first, rows), chosen.step);
    chosen.first += part.part * rows;
    if (encoding_ == encoding::mxfp4)
      return stored_matrix::mxfp4(*values_, *scales_, chosen);
    if (encoding_ == encoding::squares)
      return stored_matrix::scaled(*values_, *scales_, chosen, square);
    return stored_matrix(*values_, chosen);
  }

private:
  static constexpr std::size_t block = quantized_block_size, square = 128;
  enum class encoding { plain, mxfp4, squares };

  void check(std::vector<std::size_t> shape) {
    cols_ = shape.back();
    rows_ = 1;
    for (std::size_t i = 0; i + 1 < shape.size(); ++i)
      rows_ *= shape[i];
    if (encoding_ == encoding::mxfp4) {
      require(cols_ % block == 0, where(*values_), " holds rows of ", cols_, " values in blocks of ", block);
      shape.back() = cols_ / block;
      check_tensor(*scales_, shape, {tensor_type::u8, tensor_type::f8_e8m0});
      shape.push_back(block / 2);
      check_tensor(*values_, shape, {tensor_type::u8});
      return;
    }
    if (encoding_ == encoding::squares) {
      require(shape.size() == 2, where(*scales_), " has factors of a tensor that is no matrix");
      check_tensor(*values_, shape, {tensor_type::f8_e4m3, tensor_type::f8_e5m2});
      check_tensor(*scales_, {blocks_of(rows_, square), blocks_of(cols_, square)}, {tensor_type::f32});
      return;
    }
    check_tensor(*values_, shape, {tensor_type::f32, tensor_type::bf16, tensor_type::f16});
  }
  static void check_tensor(const stored_tensor& tensor, const std::vector<std::size_t>& shape,
                           std::initializer_list<tensor_type> types) {
    const stored_tensor needed(tensor.file(), tensor.name(), *types.begin(), shape, {});
    require(std::ranges::equal(tensor.shape(), shape) && std::ranges::find(types, tensor.type()) != types.end(),
            where(tensor), " is ", tensor.description(), ", needed is ", needed.description(),
            types.size() == 1 ? "" : " or another type of that kind");
  }
  static std::string where(const stored_tensor& tensor) {
    return tensor.file() + ": tensor " + in_quotes(tensor.name());
  }

  const stored_tensor *values_ = nullptr, *scales_ = nullptr;
  encoding encoding_ = encoding::plain;
  std::size_t rows_ = 0, cols_ = 0;
};

} // namespace hmoe::io::models

#include <hmoe/core/macros_on.hpp>
