// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <utility>

namespace hmoe::detail {

/// The only owner of an object on the heap. Copies are deep: T::clone() const returns another owned<T>. Owners that are
/// not Copied can be moved only. (T may be incomplete, so clone() cannot be asked for. Headers that every program reads
/// take this in place of <memory>, which is long to compile.)
template <class T, bool Copied = true> class owned {
public:
  explicit owned(T* object) noexcept : object_(object) {}
  owned(const owned& other)
    requires Copied
      : owned(other->clone()) {}
  owned(owned&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  owned& operator=(owned other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~owned() { delete object_; }

  /// Null where the object was moved away.
  [[nodiscard]] T* get() const noexcept { return object_; }
  [[nodiscard]] T& operator*() const noexcept { return *object_; }
  [[nodiscard]] T* operator->() const noexcept { return object_; }

private:
  T* object_;
};

} // namespace hmoe::detail

#include <hmoe/core/macros_on.hpp>
