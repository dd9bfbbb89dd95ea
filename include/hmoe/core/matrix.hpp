// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <limits>
#include <memory_resource>
#include <utility>

namespace hmoe {

/// An owning row-major host matrix: contiguous, 64-byte aligned, grow-only (see buffer).
template <class T> class matrix {
public:
  using value_type = T;

  matrix() = default;
  explicit matrix(std::pmr::memory_resource* memory) : values_(memory) {}
  /// rows × cols zeros.
  matrix(std::size_t rows, std::size_t cols, std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : values_(memory) {
    resize_for_overwrite(rows, cols);
    set_zero();
  }

  /// rows × cols values that are not initialised.
  [[nodiscard]] static matrix for_overwrite(std::size_t rows, std::size_t cols, std::pmr::memory_resource* memory) {
    matrix result(memory);
    result.resize_for_overwrite(rows, cols);
    return result;
  }

  matrix(const matrix&) = default;
  matrix(matrix&& other) noexcept
      : values_(std::move(other.values_)), rows_(std::exchange(other.rows_, 0)), cols_(std::exchange(other.cols_, 0)) {}
  matrix& operator=(matrix other) noexcept {
    values_.swap(other.values_);
    std::swap(rows_, other.rows_);
    std::swap(cols_, other.cols_);
    return *this;
  }
  ~matrix() = default;

  void resize_for_overwrite(std::size_t rows, std::size_t cols) {
    require(cols == 0 || rows <= std::numeric_limits<std::size_t>::max() / cols, "a matrix of ", rows, " by ", cols,
            " values does not fit into memory");
    values_.resize_for_overwrite(rows * cols);
    rows_ = rows;
    cols_ = cols;
  }
  void set_zero() noexcept { values_.fill(T{}); }

  [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::size_t cols() const noexcept { return cols_; }
  [[nodiscard]] std::size_t size() const noexcept { return values_.size(); }
  [[nodiscard]] T* data() noexcept { return values_.data(); }
  [[nodiscard]] const T* data() const noexcept { return values_.data(); }
  T& operator()(std::size_t row, std::size_t col) noexcept {
    HMOE_ASSERT_INDEX("row", row, rows_);
    HMOE_ASSERT_INDEX("column", col, cols_);
    return values_.data()[row * cols_ + col];
  }
  const T& operator()(std::size_t row, std::size_t col) const noexcept {
    HMOE_ASSERT_INDEX("row", row, rows_);
    HMOE_ASSERT_INDEX("column", col, cols_);
    return values_.data()[row * cols_ + col];
  }
  [[nodiscard]] vector_view<T> row(std::size_t r) & noexcept { return view().row(r); }
  [[nodiscard]] vector_view<const T> row(std::size_t r) const& noexcept HMOE_LIFETIMEBOUND { return view().row(r); }

  /// Of a temporary there are views to read through only (see matrix_view).
  [[nodiscard]] matrix_view<T> view() & noexcept { return {data(), rows_, cols_}; }
  [[nodiscard]] matrix_view<const T> view() const& noexcept HMOE_LIFETIMEBOUND { return {data(), rows_, cols_}; }
  operator matrix_view<T>() & noexcept { return view(); }
  operator matrix_view<const T>() const& noexcept HMOE_LIFETIMEBOUND { return view(); }

private:
  buffer<T> values_;
  std::size_t rows_ = 0, cols_ = 0;
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
