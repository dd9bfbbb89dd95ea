// SPDX-License-Identifier: MIT
// Included several times.

#include <hmoe/core/compiler.hpp>

/// \file
/// Brings back what macros_off.hpp has put aside.

#pragma pop_macro("check")
#pragma pop_macro("fail")
#pragma pop_macro("max")
#pragma pop_macro("min")
#pragma pop_macro("require")
