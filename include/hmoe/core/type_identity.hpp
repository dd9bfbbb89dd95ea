// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <cstddef>
#include <string_view>

/// Types told apart and named at run time, with -fno-rtti too: for objects that hold one of several kinds.
namespace hmoe::detail {

/// Its address identifies the type: one in a program and its shared libraries, and not const, since linkers may merge
/// constants of equal value.
template <class E> [[gnu::visibility("default")]] inline char type_mark = 0;

/// The name of E for messages, as the compiler spells it in "… [with E = name; …]" or "… [E = name]".
template <class E> [[nodiscard]] constexpr std::string_view type_name() noexcept {
  constexpr std::string_view text = __PRETTY_FUNCTION__, before = "E = ";
  constexpr std::size_t first = text.find(before) + before.size();
  return text.substr(first, text.find_first_of(";]", first) - first);
}

} // namespace hmoe::detail

#include <hmoe/core/macros_on.hpp>
