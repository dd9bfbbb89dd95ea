// SPDX-License-Identifier: MIT
// expect: hmoe::objective: an element of Losses lacks a static name
#include <hmoe/losses/objective.hpp>

using namespace hmoe;

struct zero {
  double coefficient = 1;
#ifdef HMOE_MUST_COMPILE
  static constexpr std::string_view name = "zero";
#endif
  template <class T> double evaluate(routed_batch<T>&) const { return 0; }
};

objective aux{zero{}};
