// SPDX-License-Identifier: MIT
// expect: hmoe::dispatch: After is neither capacity::keep_weights nor capacity::renormalize_kept
#include <hmoe/dispatch/sorted.hpp>

namespace capacity = hmoe::capacity;

#ifdef HMOE_MUST_COMPILE
using after = capacity::renormalize_kept;
#else
using after = capacity::keep_heaviest; // an order, given in the wrong place
#endif

hmoe::dispatch::sorted strategy{capacity::by_factor{1.25}, capacity::keep_first{}, after{}};
