// SPDX-License-Identifier: MIT
// expect: hmoe::widths::fixed: Widths contains 0: the narrowest expert has width 1
#include <hmoe/experts/widths.hpp>

#ifdef HMOE_MUST_COMPILE
using sizes = hmoe::widths::fixed<3, 1>;
#else
using sizes = hmoe::widths::fixed<3, 0>;
#endif

std::size_t total = sizes::total;
