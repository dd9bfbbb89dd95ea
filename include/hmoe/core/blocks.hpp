// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>

#include <cstddef>

namespace hmoe {

/// How many blocks of `size` things hold `count` of them; the last block may be shorter.
[[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t blocks_of(std::size_t count, std::size_t size) noexcept {
  return (count + size - 1) / size;
}

/// `count` rounded up to a multiple of `size`.
[[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t round_up(std::size_t count, std::size_t size) noexcept {
  return blocks_of(count, size) * size;
}

/// Things [first, first + count) of many.
struct block_range {
  std::size_t first, count;
};

/// Block i of `blocks` blocks of `size` things; the last one has what is left of `count`.
[[nodiscard]] HMOE_HOST_DEVICE constexpr block_range block_at(std::size_t i, std::size_t size,
                                                              std::size_t count) noexcept {
  const std::size_t first = i * size, left = count - first;
  return {first, left < size ? left : size};
}

/// Part i of `parts` nearly equal parts of `count` things: where a short last block would run at a fraction of the
/// speed.
[[nodiscard]] HMOE_HOST_DEVICE constexpr block_range even_part(std::size_t i, std::size_t parts,
                                                               std::size_t count) noexcept {
  const std::size_t first = i * count / parts;
  return {first, (i + 1) * count / parts - first};
}

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
