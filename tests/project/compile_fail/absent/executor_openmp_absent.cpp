// SPDX-License-Identifier: MIT
// expect: hmoe: executors::openmp is not there: link hmoe::openmp, or compile with -fopenmp
#include <hmoe/hmoe.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
context ctx{backends::reference{}, executors::serial{}};
#else
context ctx{backends::reference{}, executors::openmp{2}};
#endif
