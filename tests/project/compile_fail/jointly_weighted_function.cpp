// SPDX-License-Identifier: MIT
// expect: hmoe::routing::jointly_weighted: Function does not model hmoe::score_function
#include <hmoe/routing/shared/jointly_weighted.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>

namespace routing = hmoe::routing;

#ifdef HMOE_MUST_COMPILE
routing::jointly_weighted<float, routing::sigmoid> shared(8);
#else
routing::jointly_weighted<float, routing::renormalized> shared(8); // a weighting, not a score function
#endif
