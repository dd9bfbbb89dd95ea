// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/small_floats.hpp>
#include <hmoe/io/stored_tensor.hpp>
#include <hmoe/io/tensor_type.hpp>
#include <hmoe/io/tensor_values.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::io::models {

/// A matrix of the library within a tensor of a file: the tensor's name and the shape that it must have; the part of it
/// (expert e of E, along the first dimension); and the rows of that part: first, first + step, …, or its columns where
/// the file has the transpose.
struct tensor_part {
  std::string name;
  std::vector<std::size_t> shape{};
  std::size_t part = 0, parts = 1;
  std::size_t first = 0, step = 1;
  bool transposed = false;
};

/// A weight tensor of a file as rows of floats: a floating-point tensor; E8M0-scaled blocks of 32 values of E2M1 along
/// a row (name_blocks, U8 [… × G × 16], the first value of a byte in its lower half, and name_scales, U8 [… × G]: MXFP4
/// as gpt-oss ships it); or values with a float factor for each block of 128 × 128 (name_scale_inv: FP8 as DeepSeek-V3
/// ships it).
class weight_tensor {
public:
  static constexpr std::size_t block = 32, square = 128;

  weight_tensor() = default;
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
  [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::size_t cols() const noexcept { return cols_; }

  /// Row r of all rows: cols() floats.
  void read_row(std::size_t r, float* to) const noexcept {
    if (encoding_ == encoding::mxfp4) {
      const std::byte* codes = values_->bytes().data() + r * (cols_ / 2);
      const std::byte* exponents = scales_->bytes().data() + r * (cols_ / block);
      for (std::size_t i = 0; i < cols_; ++i) {
        const auto code = static_cast<unsigned>(codes[i / 2]) >> (i % 2 * 4);
        to[i] = float_of_e2m1(code) * float_of_e8m0(static_cast<std::uint8_t>(exponents[i / block]));
      }
      return;
    }
    convert_values(values_->type(), values_->bytes().data() + r * (values_->bytes().size() / rows_), cols_, to);
    if (encoding_ != encoding::squares)
      return;
    const std::size_t across = (cols_ + square - 1) / square;
    for (std::size_t b = 0; b < across; ++b) {
      float factor = 0;
      convert_values(scales_->type(), scales_->bytes().data() + (r / square * across + b) * sizeof(float), 1, &factor);
      for (std::size_t i = b * square; i < std::min(cols_, (b + 1) * square); ++i)
        to[i] *= factor;
    }
  }
  /// Reads `part` of it into `to`. The shapes fit where those of the part were made for `to`.
  void read(const tensor_part& part, matrix_view<float> to) const {
    const std::size_t first_row = part.part * (rows_ / part.parts);
    if (!part.transposed) {
      for (std::size_t r = 0; r < to.rows(); ++r)
        read_row(first_row + part.first + r * part.step, to.row(r).data());
      return;
    }
    // Some rows at a time, so that a row of `to` is written in pieces of a cache line and not value by value.
    constexpr std::size_t together = 16;
    std::vector<float> rows(together * cols_);
    for (std::size_t c = 0; c < to.cols(); c += together) {
      const std::size_t count = std::min(together, to.cols() - c);
      for (std::size_t i = 0; i < count; ++i)
        read_row(first_row + c + i, rows.data() + i * cols_);
      for (std::size_t r = 0; r < to.rows(); ++r)
        for (std::size_t i = 0; i < count; ++i)
          to(r, c + i) = rows[i * cols_ + part.first + r * part.step];
    }
  }

private:
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
      check_tensor(*scales_, {(rows_ + square - 1) / square, (cols_ + square - 1) / square}, {tensor_type::f32});
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
