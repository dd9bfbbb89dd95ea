// SPDX-License-Identifier: MIT
// expect: hmoe::dispatch::padded: Capacity is no_capacity, which gives nothing to pad to: use capacity::busiest\{\} to pad without dropping, or dispatch::sorted\{\} to do neither
#include <hmoe/dispatch/padded.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
inline const dispatch::padded pads{capacity::busiest{}};
#else
inline const dispatch::padded pads{capacity::no_capacity{}};
#endif
