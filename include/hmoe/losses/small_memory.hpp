// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>

#include <array>
#include <cstddef>
#include <memory_resource>

namespace hmoe::losses::detail {

/// Scratch for a loss: 8 KiB on the stack, which is enough for 500 experts; what does not fit comes from the heap.
class small_memory {
public:
  small_memory() = default;
  small_memory(const small_memory&) = delete;
  small_memory& operator=(const small_memory&) = delete;
  ~small_memory() = default;

  /// `count` zeros that live as long as this object.
  template <class V> [[nodiscard]] buffer<V> zeros(std::size_t count) {
    buffer<V> values(count, &resource_);
    values.fill(V{});
    return values;
  }

private:
  alignas(memory_alignment) std::array<std::byte, 8192> bytes_;
  std::pmr::monotonic_buffer_resource resource_{bytes_.data(), bytes_.size()};
};

} // namespace hmoe::losses::detail

#include <hmoe/core/macros_on.hpp>
