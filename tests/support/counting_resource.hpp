// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory_resource>
#include <new>

namespace support {

/// A heap that counts, and that can be told to have run out.
class counting_resource final : public std::pmr::memory_resource {
public:
  int allocations = 0, live = 0;
  std::size_t live_bytes = 0, peak_bytes = 0;
  bool exhausted = false;

private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    if (exhausted)
      throw std::bad_alloc();
    ++allocations;
    ++live;
    live_bytes += bytes;
    peak_bytes = std::max(peak_bytes, live_bytes);
    return std::pmr::new_delete_resource()->allocate(bytes, alignment);
  }
  void do_deallocate(void* memory, std::size_t bytes, std::size_t alignment) override {
    --live;
    live_bytes -= bytes;
    std::pmr::new_delete_resource()->deallocate(memory, bytes, alignment);
  }
  [[nodiscard]] bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }
};

} // namespace support
