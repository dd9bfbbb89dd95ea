// SPDX-License-Identifier: MIT
// expect: hmoe: identity of a policy is not const, or returns no text
#include <hmoe/core/description.hpp>

struct policy {
#ifdef HMOE_MUST_COMPILE
  const char* identity() const { return "seven"; }
#else
  int identity() const { return 7; }
#endif
};

std::string text(const policy& own) { return hmoe::descriptions::describe(own); }
