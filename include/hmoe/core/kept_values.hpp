// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>

#include <cstddef>
#include <memory>
#include <memory_resource>
#include <span>
#include <utility>

namespace hmoe {

/// An array to read that is this object's own, or somebody else's (a mapped file's), whose owner is kept as long. A
/// copy of an array of one's own is another array; copies of somebody else's share it.
template <class T> class kept_values {
public:
  explicit kept_values(buffer<T> own) noexcept : own_(std::move(own)), data_(own_.data()), size_(own_.size()) {}
  /// Without an owner the values must outlive this object and its copies.
  kept_values(std::span<const T> values, std::shared_ptr<const void> owner) noexcept
      : owner_(std::move(owner)), data_(values.data()), size_(values.size()) {}

  kept_values(const kept_values& other)
      : own_(other.own_), owner_(other.owner_), data_(other.owns() ? own_.data() : other.data_), size_(other.size_) {}
  kept_values(kept_values&& other) noexcept
      : own_(std::move(other.own_)), owner_(std::move(other.owner_)), data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  kept_values& operator=(kept_values other) noexcept {
    own_.swap(other.own_);
    owner_.swap(other.owner_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~kept_values() = default;

  [[nodiscard]] const T* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::span<const T> view() const noexcept { return {data_, size_}; }
  /// Who keeps the array where it is not this object's own; null where that is the caller's business.
  [[nodiscard]] const std::shared_ptr<const void>& owner() const noexcept { return owner_; }
  /// Whether the array is this object's own.
  [[nodiscard]] bool owns() const noexcept { return data_ == own_.data(); }

private:
  buffer<T> own_;
  std::shared_ptr<const void> owner_;
  const T* data_;
  std::size_t size_;
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
