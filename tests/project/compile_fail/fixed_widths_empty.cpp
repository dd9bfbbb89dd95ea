// SPDX-License-Identifier: MIT
// expect: hmoe::widths::fixed: Widths is empty: give the width of at least one expert
#include <hmoe/experts/widths.hpp>

#ifdef HMOE_MUST_COMPILE
using sizes = hmoe::widths::fixed<3, 0>;
#else
using sizes = hmoe::widths::fixed<>;
#endif

std::size_t total = sizes::count;
