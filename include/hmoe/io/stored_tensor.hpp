// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/io/in_quotes.hpp>
#include <hmoe/io/tensor_type.hpp>
#include <hmoe/io/tensor_values.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::io {

/// A tensor of a file: what it is called, its type and shape, and where its values lie. The bytes belong to whoever
/// gave it. As a matrix its last dimension is the columns and all others together are the rows, so that [n] is a single
/// row and [E × h × d] is E·h rows; slice(e) is one of those E matrices.
class stored_tensor {
public:
  stored_tensor(std::string file, std::string name, tensor_type type, std::vector<std::size_t> shape,
                std::span<const std::byte> bytes)
      : file_(std::move(file)), name_(std::move(name)), type_(type), shape_(std::move(shape)), bytes_(bytes) {}

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// For messages: what the file is called.
  [[nodiscard]] const std::string& file() const noexcept { return file_; }
  [[nodiscard]] tensor_type type() const noexcept { return type_; }
  [[nodiscard]] std::span<const std::size_t> shape() const noexcept { return shape_; }
  /// Row-major, without padding.
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::size_t rows() const noexcept {
    std::size_t rows = 1;
    for (std::size_t i = 0; i + 1 < shape_.size(); ++i)
      rows *= shape_[i];
    return rows;
  }
  [[nodiscard]] std::size_t cols() const noexcept { return shape_.empty() ? 1 : shape_.back(); }
  [[nodiscard]] std::size_t size() const noexcept { return rows() * cols(); }
  /// "F32 [4, 16]".
  [[nodiscard]] std::string description() const {
    std::string text = std::string(traits_of(type_).name) + " [";
    for (std::size_t i = 0; i < shape_.size(); ++i)
      text += (i == 0 ? "" : ", ") + std::to_string(shape_[i]);
    return text + "]";
  }

  /// Part i along the first dimension. hmoe::error where there is none, or where it does not begin at a byte.
  [[nodiscard]] stored_tensor slice(std::size_t i) const {
    require(!shape_.empty() && i < shape_[0], where(), " has no part ", i, ": it is ", description());
    const tensor_type_traits& traits = traits_of(type_);
    const std::size_t values = size() / shape_[0];
    require(values % traits.block_values == 0, where(), ": a part of ", values, " values of ", traits.name,
            " does not fill blocks of ", traits.block_values);
    const std::size_t size = values / traits.block_values * traits.block_bytes;
    return {file_, name_, type_, {shape_.begin() + 1, shape_.end()}, bytes_.subspan(i * size, size)};
  }

  /// Whether view<T>() works: the values are of type T and their address is one that a T can have.
  template <tensor_value T> [[nodiscard]] bool viewable() const noexcept {
    return type_ == tensor_type_of<T> && (bytes_.empty() || address() % alignof(T) == 0);
  }
  /// The values where they lie, as a matrix. hmoe::error unless viewable<T>().
  template <tensor_value T> [[nodiscard]] matrix_view<const T> view() const {
    require(type_ == tensor_type_of<T>, where(), " is ", description(), ", a view needs ",
            traits_of(tensor_type_of<T>).name, ": copy it by read()");
    require(viewable<T>(), where(), " lies ", address() % alignof(T), " bytes behind an address that a ",
            traits_of(type_).name, " can have: copy it by read()");
    return {reinterpret_cast<const T*>(bytes_.data()), rows(), cols()};
  }
  /// Copies the values as a matrix of that shape, converted as convert_values says. hmoe::error, and nothing is
  /// written, where the shapes differ.
  template <float_or_double T> void read(matrix_view<T> to) const {
    require_shape(to.rows(), to.cols());
    const tensor_type_traits& traits = traits_of(type_);
    if (to.size() == 0)
      return;
    if (to.contiguous())
      return convert_values(type_, bytes_.data(), to.size(), to.data());
    require(cols() % traits.block_values == 0, where(), " has rows of ", cols(), " values, and ", traits.name,
            " has blocks of ", traits.block_values, ": it can only be read to contiguous memory");
    for (std::size_t r = 0; r < to.rows(); ++r)
      convert_values(type_, bytes_.data() + r * (cols() / traits.block_values * traits.block_bytes), cols(),
                     to.row(r).data());
  }
  /// hmoe::error unless the tensor is such a matrix.
  void require_shape(std::size_t rows, std::size_t cols) const {
    require(this->rows() == rows && this->cols() == cols, where(), " is ", description(), ", needed is a matrix of ",
            rows, " x ", cols);
  }

private:
  [[nodiscard]] std::string where() const { return file_ + ": tensor " + in_quotes(name_); }
  [[nodiscard]] std::uintptr_t address() const noexcept { return reinterpret_cast<std::uintptr_t>(bytes_.data()); }

  std::string file_, name_;
  tensor_type type_;
  std::vector<std::size_t> shape_;
  std::span<const std::byte> bytes_;
};

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
