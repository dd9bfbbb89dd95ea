// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace hmoe::io {

/// A text from a file, for a message: in quotes, with '?' in the place of bytes that are not printable ASCII, and cut
/// after 100 bytes.
[[nodiscard]] inline std::string in_quotes(std::string_view text) {
  constexpr std::size_t longest = 100;
  std::string result = "\"";
  for (const char c : text.substr(0, longest))
    result += c >= ' ' && c <= '~' ? c : '?';
  return result + (text.size() > longest ? "…\"" : "\"");
}

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
