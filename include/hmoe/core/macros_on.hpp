// SPDX-License-Identifier: MIT
// Included several times.

#include <hmoe/core/compiler.hpp>

/// \file
/// Brings back what macros_off.hpp has put aside.

#ifdef __clang__ // warns where this header is compiled alone and there is nothing to bring back
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wignored-pragmas"
#endif
#pragma pop_macro("check")
#pragma pop_macro("fail")
#pragma pop_macro("max")
#pragma pop_macro("min")
#pragma pop_macro("require")
#ifdef __clang__
#pragma clang diagnostic pop
#endif
