// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/config.hpp>
#include <hmoe/core/space.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/fwd.hpp>

#include <concepts>
#include <type_traits>

namespace hmoe {

/// Customisation point: how a foreign matrix type shows itself as a matrix_view. A specialisation has a static
/// `matrix_view<T> view(M&)`; interop/eigen.hpp has one for Eigen.
template <class M> struct matrix_view_traits {};

namespace detail {
template <class M, class View>
concept viewable_as = requires(M& m) {
  { matrix_view_traits<std::remove_cvref_t<M>>::view(m) } -> std::convertible_to<View>;
};
} // namespace detail

/// A row-major matrix that somebody else owns: `rows` rows of `cols` contiguous values, `stride` values apart.
/// Space says which memory the pointer refers to.
template <class T, class Space> class matrix_view {
public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;
  using space = Space;

  matrix_view() = default;
  HMOE_HOST_DEVICE constexpr matrix_view(T* data, std::size_t rows, std::size_t cols, std::size_t stride) noexcept
      : data_(data), rows_(rows), cols_(cols), stride_(stride) {}
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
  matrix_view(M&& foreign) : matrix_view(matrix_view_traits<std::remove_cvref_t<M>>::view(foreign)) {}

  /// Never valid: exists to say in words what went wrong.
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
    return data_[row * stride_ + col];
  }
  [[nodiscard]] HMOE_HOST_DEVICE constexpr vector_view<T> row(std::size_t r) const noexcept {
    return {data_ + r * stride_, cols_};
  }

  /// Rows [first, first + count).
  [[nodiscard]] HMOE_HOST_DEVICE constexpr matrix_view row_block(std::size_t first, std::size_t count) const noexcept {
    return {data_ + first * stride_, count, cols_, stride_};
  }
  /// Columns [first, first + count).
  [[nodiscard]] HMOE_HOST_DEVICE constexpr matrix_view column_block(std::size_t first,
                                                                    std::size_t count) const noexcept {
    return {rows_ == 0 ? data_ : data_ + first, rows_, count, stride_}; // without rows there is nothing to point into
  }

private:
  T* data_ = nullptr;
  std::size_t rows_ = 0, cols_ = 0, stride_ = 0;
};

/// Whether two memory ranges share a byte: outputs must not alias inputs.
template <class A, class B> [[nodiscard]] bool overlaps(matrix_view<A> a, matrix_view<B> b) noexcept {
  if (a.size() == 0 || b.size() == 0)
    return false;
  const auto first = [](const auto& m) { return reinterpret_cast<std::uintptr_t>(m.data()); };
  const auto last = [](const auto& m) {
    return reinterpret_cast<std::uintptr_t>(m.data() + (m.rows() - 1) * m.stride() + m.cols());
  };
  return first(a) < last(b) && first(b) < last(a);
}

} // namespace hmoe
