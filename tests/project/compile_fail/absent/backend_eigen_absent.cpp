// SPDX-License-Identifier: MIT
// expect: hmoe: backends::eigen is not there: link hmoe::eigen, or compile with -DHMOE_WITH_EIGEN
#include <hmoe/hmoe.hpp>
#ifdef HMOE_MUST_COMPILE
#include <hmoe/backends/eigen.hpp>
#endif

using namespace hmoe;

void run(const context<backends::reference>&);
context ctx{backends::eigen{}};
