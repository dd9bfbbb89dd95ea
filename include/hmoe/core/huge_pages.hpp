// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace hmoe {

/// Advises the kernel to back the 2 MB-aligned part of a block with huge pages. Call it before the block is first
/// touched. With 4 KB pages an address must be translated, and the CPU's own prefetching starts anew, every 4 KB:
/// passes over few tokens, which are bound by memory, take 1.1 to 1.4 times as long on a Zen 3. Linux follows the
/// advice where /sys/kernel/mm/transparent_hugepage/enabled says `madvise` or `always`; elsewhere the call does
/// nothing. The contents are the same either way.
inline void prefer_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t page = std::uintptr_t{2} << 20;
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  const std::uintptr_t begin = (address + page - 1) / page * page, end = (address + bytes) / page * page;
  if (begin < end)
    static_cast<void>(::madvise(static_cast<std::byte*>(memory) + (begin - address), end - begin, MADV_HUGEPAGE));
#endif
}

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
