// SPDX-License-Identifier: MIT
// expect: hmoe: backends::simd is not there: link hmoe::simd, or compile with -DHMOE_WITH_SIMD
#include <hmoe/hmoe.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
#include <hmoe/backends/simd.hpp>
#endif
context ctx{backends::simd<>{}};
