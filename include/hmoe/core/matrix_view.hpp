// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assertions.hpp>
#include <hmoe/core/config.hpp>
#include <hmoe/core/space.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/fwd.hpp>

#include <concepts>
#include <type_traits>

namespace hmoe {

/// Customisation point: how a foreign matrix type shows itself as a matrix_view. A specialisation has a static
/// `matrix_view<T> view(M&)`, and `static constexpr bool refers = true` where M itself refers to the memory of others,
/// so that a temporary may be written through. interop/eigen.hpp has one for Eigen.
template <class M> struct matrix_view_traits {};

namespace detail {
template <class M, class View>
concept viewable_as = requires(M& m) {
  { matrix_view_traits<std::remove_cvref_t<M>>::view(m) } -> std::convertible_to<View>;
};
template <class M>
concept refers_to_memory = requires { requires matrix_view_traits<std::remove_cvref_t<M>>::refers; };
} // namespace detail

/// A row-major matrix that somebody else owns: `rows` rows of `cols` contiguous values, `stride` values apart.
/// Space says which memory the pointer refers to. A temporary matrix becomes a view to read through, which lives as
/// long as the call that it is an argument of; a view to write through cannot be made of one. Rows of a view to read
/// through may share values (stride < cols).
template <class T, class Space> class matrix_view {
public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;
  using space = Space;

  matrix_view() = default;
  HMOE_HOST_DEVICE constexpr matrix_view(T* data, std::size_t rows, std::size_t cols, std::size_t stride) noexcept
      : data_(data), rows_(rows), cols_(cols), stride_(stride) {
    if constexpr (!std::is_const_v<T>)
      HMOE_ASSERT_STRIDE(rows, cols, stride);
  }
  HMOE_HOST_DEVICE constexpr matrix_view(T* data, std::size_t rows, std::size_t cols) noexcept
      : matrix_view(data, rows, cols, cols) {}

  /// A view to read through, from one to write through. (A template, so that it is not taken for a copy constructor.)
  template <class U>
    requires(std::is_const_v<T> && std::same_as<U, value_type>)
  HMOE_HOST_DEVICE constexpr matrix_view(const matrix_view<U, Space>& other) noexcept
      : matrix_view(other.data(), other.rows(), other.cols(), other.stride()) {}

  /// Matrices of other libraries, see matrix_view_traits.
  template <class M>
    requires std::same_as<Space, host_space> && detail::viewable_as<M, matrix_view<T, host_space>>
  matrix_view(M&& foreign HMOE_LIFETIMEBOUND) : matrix_view(matrix_view_traits<std::remove_cvref_t<M>>::view(foreign)) {
    static_assert(std::is_const_v<T> || std::is_lvalue_reference_v<M> || detail::refers_to_memory<M>,
                  "hmoe: a temporary matrix was given as an output, or as the source of a view to write through: its "
                  "values would be lost; give it a name and pass that");
  }

  /// Never valid: these exist to say in words what went wrong.
  template <class U>
    requires(!std::is_const_v<T> && std::same_as<U, value_type> && std::same_as<Space, host_space>)
  matrix_view(matrix<U>&&) {
    static_assert(std::is_const_v<T>,
                  "hmoe: a temporary matrix was given as an output, or as the source of a view to write through: its "
                  "values would be lost; give it a name and pass that");
  }
  template <class U, class Other>
    requires(!std::same_as<Space, Other>)
  matrix_view(const matrix_view<U, Other>&) {
    static_assert(std::same_as<Space, Other>,
                  "hmoe: a matrix_view of one memory space was given where the other is expected (host_space and "
                  "device_space do not mix): copy the matrix to the space of the context first");
  }

  [[nodiscard]] HMOE_HOST_DEVICE constexpr T* data() const noexcept { return data_; }
  [[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t rows() const noexcept { return rows_; }
  [[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t cols() const noexcept { return cols_; }
  [[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t stride() const noexcept { return stride_; }
  [[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t size() const noexcept { return rows_ * cols_; }
  [[nodiscard]] HMOE_HOST_DEVICE constexpr bool contiguous() const noexcept { return stride_ == cols_ || rows_ <= 1; }

  HMOE_HOST_DEVICE constexpr T& operator()(std::size_t row, std::size_t col) const noexcept {
    HMOE_ASSERT_INDEX("row", row, rows_);
    HMOE_ASSERT_INDEX("column", col, cols_);
    HMOE_ASSERT_MEMORY(data_, rows_, cols_);
    return data_[row * stride_ + col];
  }
  [[nodiscard]] HMOE_HOST_DEVICE constexpr vector_view<T> row(std::size_t r) const noexcept {
    HMOE_ASSERT_INDEX("row", r, rows_);
    HMOE_ASSERT_MEMORY(data_, rows_, cols_);
    return {data_ + r * stride_, cols_};
  }

  /// Rows [first, first + count).
  [[nodiscard]] HMOE_HOST_DEVICE constexpr matrix_view row_block(std::size_t first, std::size_t count) const noexcept {
    HMOE_ASSERT_RANGE("rows", first, count, rows_);
    return {data_ + first * stride_, count, cols_, stride_};
  }
  /// Columns [first, first + count).
  [[nodiscard]] HMOE_HOST_DEVICE constexpr matrix_view column_block(std::size_t first,
                                                                    std::size_t count) const noexcept {
    HMOE_ASSERT_RANGE("columns", first, count, cols_);
    return {rows_ == 0 ? data_ : data_ + first, rows_, count, stride_}; // without rows there is nothing to point into
  }

private:
  T* data_ = nullptr;
  std::size_t rows_ = 0, cols_ = 0, stride_ = 0;
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
