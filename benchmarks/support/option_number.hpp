// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>

#include <charconv>
#include <string_view>
#include <system_error>

namespace benchmarks {

/// The number above 0 that the text of an option is; hmoe::error with the option's name where it is none.
template <class T> [[nodiscard]] T option_number(std::string_view name, std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  hmoe::require(error == std::errc{} && end == text.data() + text.size() && value > 0, name, " is \"", text,
                "\": give a number above 0");
  return value;
}

} // namespace benchmarks
