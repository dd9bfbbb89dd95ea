// SPDX-License-Identifier: MIT
// expect: hmoe::dispatch: Capacity does not model hmoe::capacity_policy: it needs limits\(capacity::demand, vector_view<std::size_t>\) const .* pass for instance capacity::by_factor\{1.25\}
#include <hmoe/dispatch/sorted.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
inline const dispatch::sorted drops{capacity::by_factor{1.25}};
#else
inline const dispatch::sorted drops{1.25};
#endif
