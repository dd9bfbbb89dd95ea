// SPDX-License-Identifier: MIT
#pragma once

#include <exception>
#include <string>

namespace language_model {

/// The message of an exception, without the library's name before it.
inline std::string reason(const std::exception& e) {
  const std::string text = e.what();
  constexpr const char* prefix = "hmoe: ";
  return text.starts_with(prefix) ? text.substr(std::string(prefix).size()) : text;
}

} // namespace language_model
