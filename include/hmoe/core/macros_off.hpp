// SPDX-License-Identifier: MIT
// Included several times.

#include <hmoe/core/compiler.hpp>

/// \file
/// Puts macros of other headers aside whose names the library uses for functions; macros_on.hpp brings them back. The
/// headers that users include by name begin and end with the two: hmoe.hpp, and what it leaves out.

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
