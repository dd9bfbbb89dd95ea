// SPDX-License-Identifier: MIT
// expect: hmoe: executors::tbb is not there: include hmoe/execution/tbb.hpp, and link hmoe::tbb
#include <hmoe/hmoe.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
context ctx{backends::reference{}, executors::serial{}};
#else
context ctx{backends::reference{}, executors::tbb{2}};
#endif
