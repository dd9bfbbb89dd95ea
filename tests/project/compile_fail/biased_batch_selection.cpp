// SPDX-License-Identifier: MIT
// expect: hmoe::routing::biased: Selection does not model hmoe::selection: it must choose for one token
#include <hmoe/routing/biased.hpp>
#include <hmoe/routing/expert_choice.hpp>
#include <hmoe/routing/selections.hpp>

using namespace hmoe::routing;

#ifdef HMOE_MUST_COMPILE
biased<float, top_k<>> choice(8, {2});
#else
biased<float, expert_choice> choice(8, {2.0});
#endif
