// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assertions.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/huge_pages.hpp>
#include <hmoe/core/vector_view.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory_resource>
#include <type_traits>
#include <utility>

namespace hmoe {

/// Alignment of everything hmoe allocates: a cache line, and the widest SIMD register.
inline constexpr std::size_t memory_alignment = 64;

/// Bytes that an array of `count` values of T takes from a workspace, alignment included.
template <class T> [[nodiscard]] constexpr std::size_t aligned_bytes(std::size_t count) noexcept {
  return (count * sizeof(T) + memory_alignment - 1) / memory_alignment * memory_alignment;
}

/// A 64-byte aligned array that only ever grows, so that reuse at the same or a smaller size allocates nothing.
/// New memory is not initialised. Memory comes from the given resource (a workspace, or the heap); from the heap in
/// huge pages where it is large enough for them.
template <class T> class buffer {
  static_assert(std::is_trivially_copyable_v<T>, "hmoe: buffer<T> holds plain values only");

public:
  buffer() noexcept : buffer(std::pmr::get_default_resource()) {}
  explicit buffer(std::pmr::memory_resource* memory) noexcept : memory_(memory) {}
  explicit buffer(std::size_t size, std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : memory_(memory) {
    resize_for_overwrite(size);
  }

  buffer(const buffer& other) : memory_(std::pmr::get_default_resource()) {
    resize_for_overwrite(other.size_);
    std::copy_n(other.data_, size_, data_);
  }
  buffer(buffer&& other) noexcept
      : memory_(other.memory_), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  buffer& operator=(buffer other) noexcept {
    swap(other);
    return *this;
  }
  ~buffer() { release(); }

  void swap(buffer& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
  }

  /// Sets the size; the contents are unspecified afterwards.
  void resize_for_overwrite(std::size_t size) {
    reserve(size);
    size_ = size;
  }
  /// Makes room for `capacity` values; contents are lost when memory moves.
  void reserve(std::size_t capacity) {
    if (capacity <= capacity_)
      return;
    require(capacity <= std::numeric_limits<std::size_t>::max() / sizeof(T) / 2, "an array of ", capacity,
            " values of ", sizeof(T), " bytes does not fit into memory");
    // Allocate before releasing: when it throws, the old contents are intact.
    T* data = static_cast<T*>(memory_->allocate(aligned_bytes<T>(capacity), memory_alignment));
    release();
    data_ = data;
    capacity_ = capacity;
    if (*memory_ == *std::pmr::new_delete_resource())
      prefer_huge_pages(data, aligned_bytes<T>(capacity));
  }
  void fill(T value) noexcept { std::fill_n(data_, size_, value); }

  [[nodiscard]] T* data() noexcept { return data_; }
  [[nodiscard]] const T* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  T& operator[](std::size_t i) noexcept {
    HMOE_ASSERT_INDEX("value", i, size_);
    return data_[i];
  }
  const T& operator[](std::size_t i) const noexcept {
    HMOE_ASSERT_INDEX("value", i, size_);
    return data_[i];
  }
  [[nodiscard]] T* begin() noexcept { return data_; }
  [[nodiscard]] T* end() noexcept { return data_ + size_; }
  [[nodiscard]] const T* begin() const noexcept { return data_; }
  [[nodiscard]] const T* end() const noexcept { return data_ + size_; }

  [[nodiscard]] vector_view<T> view() & noexcept { return {data_, size_}; }
  [[nodiscard]] vector_view<const T> view() const& noexcept HMOE_LIFETIMEBOUND { return {data_, size_}; }

private:
  void release() noexcept {
    if (data_ != nullptr)
      memory_->deallocate(data_, aligned_bytes<T>(capacity_), memory_alignment);
    data_ = nullptr;
  }

  std::pmr::memory_resource* memory_;
  T* data_ = nullptr;
  std::size_t size_ = 0, capacity_ = 0;
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
