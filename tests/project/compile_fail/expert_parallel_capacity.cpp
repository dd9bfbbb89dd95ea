// SPDX-License-Identifier: MIT
// expect: hmoe::dispatch::expert_parallel: Inner has a capacity, which would drop entries by what other ranks send
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/parallel/expert_parallel.hpp>
#include <hmoe/parallel/single.hpp>

#ifdef HMOE_MUST_COMPILE
using limit = hmoe::capacity::no_capacity;
#else
using limit = hmoe::capacity::by_factor;
#endif

hmoe::dispatch::expert_parallel strategy{hmoe::communicators::single{}, hmoe::placement::contiguous(8, 1),
                                         hmoe::dispatch::sorted{limit{}}};
