// SPDX-License-Identifier: MIT
// expect: hmoe::routing::top_k: K is larger than N, the number of experts: a token can have each expert once only
#include <hmoe/experts/widths.hpp>
#include <hmoe/routing/router.hpp>

using sizes = hmoe::widths::fixed<9, 11, 13>;
#ifdef HMOE_MUST_COMPILE
hmoe::routing::router<hmoe::routing::linear<float>, hmoe::routing::top_k<3, sizes::count>> router(4, sizes::count);
#else
hmoe::routing::router<hmoe::routing::linear<float>, hmoe::routing::top_k<4, sizes::count>> router(4, sizes::count);
#endif
