// SPDX-License-Identifier: MIT
// expect: hmoe::routing::biased: Selection does not model hmoe::selection: it must choose for one token
#include <hmoe/routing/batch_selections/expert_choice.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/selections/top_k.hpp>

using namespace hmoe::routing;

#ifdef HMOE_MUST_COMPILE
biased<float, top_k<>> choice(8, {2});
#else
biased<float, expert_choice> choice(8, {2.0});
#endif
