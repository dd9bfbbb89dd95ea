// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <cstddef>

namespace hmoe::backends::formats::detail {

/// Where the rows of a block are read: `step` values lie between two of them. Twelve pointers, beside those of weights
/// and prefetches, do not fit the 15 registers of x86-64: g++ 12 keeps some in vector registers, and to move one from
/// there takes the port of a multiply-add on Intel's CPUs. So three rows share a pointer, whose address takes the step
/// once or twice.
template <class Value, std::size_t Rows> class row_pointers {
public:
  row_pointers(const Value* first, std::size_t step) noexcept : step_(step) {
    for (std::size_t i = 0; i < count; ++i)
      pointers_[i] = first + i * sharing * step;
  }
  [[nodiscard, gnu::always_inline]] const Value* operator[](std::size_t r) const noexcept {
    return pointers_[r / sharing] + r % sharing * step_;
  }
  [[gnu::always_inline]] void advance(std::size_t values) noexcept {
#pragma GCC unroll 4
    for (std::size_t i = 0; i < count; ++i) {
      const Value* next = pointers_[i] + values;
#if defined(__x86_64__)
      if constexpr (count > 1)
        asm("" : "+r"(next)); // else g++ makes a pointer for each row of these
#endif
      pointers_[i] = next;
    }
  }

private:
#if defined(__x86_64__)
  static constexpr std::size_t sharing = Rows > 6 ? 3 : Rows;
#else
  static constexpr std::size_t sharing = Rows;
#endif
  static constexpr std::size_t count = (Rows + sharing - 1) / sharing;
  const Value* pointers_[count];
  std::size_t step_;
};

} // namespace hmoe::backends::formats::detail

#include <hmoe/core/macros_on.hpp>
