// SPDX-License-Identifier: MIT
// expect: hmoe::context: Executor does not model hmoe::executor: it needs concurrency\(\) and for_each
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
context ctx{backends::reference{}, executors::serial{}};
#else
context ctx{backends::reference{}, 4};
#endif
