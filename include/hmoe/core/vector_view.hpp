// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assertions.hpp>
#include <hmoe/core/config.hpp>

#include <span> // brings all that is used here of <ranges>, which takes longer to compile
#include <type_traits>
#include <utility>

namespace hmoe {

/// A contiguous run of values that somebody else owns: std::span for code that a device kernel also runs. A temporary
/// std::vector becomes a view to read through, which lives as long as the call that it is an argument of; a view to
/// write through cannot be made of one.
template <class T> class vector_view {
public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;

  vector_view() = default;
  HMOE_HOST_DEVICE constexpr vector_view(T* data, std::size_t size) noexcept : data_(data), size_(size) {}

  /// A view to read through, from one to write through. (A template, so that it is not taken for a copy constructor.)
  template <class U>
    requires(std::is_const_v<T> && std::same_as<U, value_type>)
  HMOE_HOST_DEVICE constexpr vector_view(const vector_view<U>& other) noexcept
      : data_(other.data()), size_(other.size()) {}

  /// std::span, std::vector, std::array and the like.
  template <class Range>
    requires std::ranges::contiguous_range<Range> && std::ranges::sized_range<Range> &&
                 (!std::same_as<std::remove_cvref_t<Range>, vector_view<T>>) &&
                 (!std::same_as<std::remove_cvref_t<Range>, vector_view<value_type>>) &&
                 std::is_convertible_v<std::remove_reference_t<std::ranges::range_reference_t<Range>> (*)[], T (*)[]>
  constexpr vector_view(Range&& range HMOE_LIFETIMEBOUND) noexcept
      : data_(std::ranges::data(range)), size_(static_cast<std::size_t>(std::ranges::size(range))) {
    static_assert(std::is_const_v<T> || std::ranges::borrowed_range<Range>,
                  "hmoe: a temporary range was given as an output, or as the source of a view to write through: its "
                  "values would be lost; give it a name and pass that");
  }

  [[nodiscard]] HMOE_HOST_DEVICE constexpr T* data() const noexcept { return data_; }
  [[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t size() const noexcept { return size_; }
  [[nodiscard]] HMOE_HOST_DEVICE constexpr bool empty() const noexcept { return size_ == 0; }
  HMOE_HOST_DEVICE constexpr T& operator[](std::size_t i) const noexcept {
    HMOE_ASSERT_INDEX("value", i, size_);
    HMOE_ASSERT_MEMORY(data_, std::size_t{1}, size_);
    return data_[i];
  }
  [[nodiscard]] HMOE_HOST_DEVICE constexpr T* begin() const noexcept { return data_; }
  [[nodiscard]] HMOE_HOST_DEVICE constexpr T* end() const noexcept { return data_ + size_; }

  /// The values [first, first + count).
  [[nodiscard]] HMOE_HOST_DEVICE constexpr vector_view subview(std::size_t first, std::size_t count) const noexcept {
    HMOE_ASSERT_RANGE("values", first, count, size_);
    return {data_ + first, count};
  }

private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

template <class T> vector_view(T*, std::size_t) -> vector_view<T>;

} // namespace hmoe

// A view does not own what it points to, so its iterators outlive it; std::span's constructor relies on these.
template <class T> inline constexpr bool std::ranges::enable_borrowed_range<hmoe::vector_view<T>> = true;
template <class T> inline constexpr bool std::ranges::enable_view<hmoe::vector_view<T>> = true;

#include <hmoe/core/macros_on.hpp>
