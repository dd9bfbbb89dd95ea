// SPDX-License-Identifier: MIT
// expect: hmoe::context: Backend does not model hmoe::backend: it lacks multiply_transposed
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
context ctx{backends::reference{}};
#else
context ctx{executors::serial{}};
#endif
