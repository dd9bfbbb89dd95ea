// SPDX-License-Identifier: MIT
// expect: hmoe::routing::top_k: K is 0: a token needs at least 1 expert
#include <hmoe/routing/router.hpp>

#ifdef HMOE_MUST_COMPILE
hmoe::routing::router<hmoe::routing::linear<float>, hmoe::routing::top_k<1>> router(4, 8);
#else
hmoe::routing::router<hmoe::routing::linear<float>, hmoe::routing::top_k<0>> router(4, 8);
#endif
