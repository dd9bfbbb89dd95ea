// SPDX-License-Identifier: MIT
// expect: (the_limit_of_cumulative_threshold_must_be_above_0|policy. must be initialized by a constant)
#include <hmoe/routing/selections/cumulative_threshold.hpp>

#ifdef HMOE_MUST_COMPILE
constexpr hmoe::routing::cumulative_threshold policy{0.6};
#else
constexpr hmoe::routing::cumulative_threshold policy{1.5};
#endif

double limit() { return policy.limit; }
