// SPDX-License-Identifier: MIT
// expect: hmoe: visit_numbers of a policy is not const
#include <hmoe/core/description.hpp>

struct policy {
  double share = 0.5;
#ifdef HMOE_MUST_COMPILE
  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("share", share); }
#else
  template <class Visitor> void visit_numbers(Visitor&& visit) { visit("share", share); }
#endif
};

std::string text(const policy& own) { return hmoe::descriptions::describe(own); }
