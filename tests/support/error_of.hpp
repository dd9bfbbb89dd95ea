// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>

#include <string>

namespace support {

/// The text of the hmoe::error that f() throws, or "no error".
template <class F> [[nodiscard]] std::string error_of(F&& f) {
  try {
    f();
  } catch (const hmoe::error& e) {
    return e.what();
  }
  return "no error";
}

} // namespace support
