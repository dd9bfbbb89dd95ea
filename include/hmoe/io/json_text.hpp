// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/io/in_quotes.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace hmoe::io {

/// Whether the bytes are UTF-8: no overlong form, no surrogate, nothing above U+10FFFF.
[[nodiscard]] inline bool is_utf8(std::string_view text) noexcept {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = [&](std::size_t n) -> unsigned {
      return i + n < text.size() ? static_cast<unsigned char>(text[i + n]) : 0U;
    };
    const unsigned first = byte(0);
    const std::size_t more = first < 0x80                    ? 0
                             : first >= 0xc2 && first < 0xe0 ? 1
                             : first >= 0xe0 && first < 0xf0 ? 2
                                                             : 3;
    if (more == 3 && (first < 0xf0 || first > 0xf4))
      return false;
    for (std::size_t n = 1; n <= more; ++n)
      if ((byte(n) & 0xc0U) != 0x80U)
        return false;
    const unsigned second = byte(1);
    if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) || (first == 0xf0 && second < 0x90) ||
        (first == 0xf4 && second > 0x8f))
      return false;
    i += more + 1;
  }
  return true;
}

/// Appends the text as a JSON string, in quotes. hmoe::error unless it is UTF-8.
inline void append_json_string(std::string& to, std::string_view text) {
  require(is_utf8(text), "the text ", in_quotes(text), " is not UTF-8, which JSON needs");
  constexpr std::string_view digits = "0123456789abcdef", short_form = "\b\t\n\f\r", letters = "btnfr";
  to += '"';
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      to += '\\';
      to += c;
    } else if (const std::size_t at = short_form.find(c); at != short_form.npos) {
      to += '\\';
      to += letters[at];
    } else if (code < 0x20) {
      to += "\\u00";
      to += digits[code >> 4U];
      to += digits[code & 15U];
    } else {
      to += c;
    }
  }
  to += '"';
}

} // namespace hmoe::io

#include <hmoe/core/macros_on.hpp>
