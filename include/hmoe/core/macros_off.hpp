// SPDX-License-Identifier: MIT
// Included several times.

#include <hmoe/core/compiler.hpp>

/// \file
/// Puts macros of other headers aside whose names the library uses for functions; macros_on.hpp brings them back. Every
/// header of the library begins with the one and ends with the other.

#pragma push_macro("check")
#pragma push_macro("fail")
#pragma push_macro("max")
#pragma push_macro("min")
#pragma push_macro("require")
#undef check
#undef fail
#undef max
#undef min
#undef require
