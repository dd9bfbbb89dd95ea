// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace hmoe::dispatch {

/// The dropless strategies that the cost model knows.
enum class strategy { per_token, scattered, sorted, blocked, looped, dense };
inline constexpr std::size_t strategy_count = 6;
/// Rows of a block where the model or dispatch::automatic takes `blocked`.
inline constexpr std::size_t automatic_block = 64;

[[nodiscard]] constexpr std::string_view name_of(strategy s) noexcept {
  constexpr std::array<std::string_view, strategy_count> names{"per_token", "scattered", "sorted",
                                                               "blocked",   "looped",    "dense"};
  return names[static_cast<std::size_t>(s)];
}
/// hmoe::error for another name.
[[nodiscard]] inline strategy strategy_of(std::string_view name) {
  for (std::size_t i = 0; i < strategy_count; ++i)
    if (name_of(static_cast<strategy>(i)) == name)
      return static_cast<strategy>(i);
  fail("no dispatch strategy is called \"" + std::string(name) +
       "\": possible are per_token, scattered, sorted, blocked, looped and dense");
}

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
