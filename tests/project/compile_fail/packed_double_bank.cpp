// SPDX-License-Identifier: MIT
// expect: hmoe::backends::simd::pack: Bank has the value_type double, and packed weights are computed in float
#include <hmoe/backends/simd.hpp>
#include <hmoe/experts/glu.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using T = float;
#else
using T = double;
#endif

void run(const experts::glu_bank<T, experts::silu>& bank) { static_cast<void>(backends::simd<>::pack(bank)); }
