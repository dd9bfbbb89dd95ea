// SPDX-License-Identifier: MIT
// expect: hmoe::objective: an element of Losses lacks a member coefficient
#include <hmoe/losses/objective.hpp>

using namespace hmoe;

struct zero {
#ifdef HMOE_MUST_COMPILE
  double coefficient = 1;
#endif
  static constexpr std::string_view name = "zero";
  template <class T> double evaluate(routed_batch<T>&) const { return 0; }
};

objective aux{zero{}};
