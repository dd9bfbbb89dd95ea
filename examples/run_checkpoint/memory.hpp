// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <cstddef>
#include <memory_resource>
#include <string>
#include <string_view>

namespace run_checkpoint {

/// A heap that counts what is taken from it: as the default resource, all memory of matrices, weights and scratch.
class counted_memory final : public std::pmr::memory_resource {
public:
  /// Bytes in use, and the most since the last call of start_peak().
  [[nodiscard]] double in_use() const noexcept { return static_cast<double>(in_use_.load()); }
  [[nodiscard]] double peak() const noexcept { return static_cast<double>(peak_.load()); }
  void start_peak() noexcept { peak_ = in_use_.load(); }

private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(void* memory, std::size_t bytes, std::size_t alignment) override;
  [[nodiscard]] bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }

  std::atomic<std::size_t> in_use_ = 0, peak_ = 0;
};

/// Bytes that a line of a file of /proc tells in kB, or 0 where there is none.
double bytes_in(const char* path, std::string_view name);
/// "12.3 MB".
std::string megabytes(double bytes);

} // namespace run_checkpoint
