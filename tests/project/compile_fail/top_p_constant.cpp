// SPDX-License-Identifier: MIT
// expect: (the_p_of_top_p_must_be_above_0_and_at_most_1|policy. must be initialized by a constant)
#include <hmoe/routing/selections/top_p.hpp>

#ifdef HMOE_MUST_COMPILE
constexpr hmoe::routing::top_p policy{0.6};
#else
constexpr hmoe::routing::top_p policy{1.5};
#endif

double p() { return policy.p; }
