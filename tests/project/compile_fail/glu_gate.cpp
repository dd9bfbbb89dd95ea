// SPDX-License-Identifier: MIT
// expect: hmoe::experts::glu_bank: Gate models neither hmoe::activation \(static value\(z\) and derivative\(z\)\) nor hmoe::gating \(value\(g, u\) and backward\(g, u, da, dg, du\)\): pass for instance experts::silu
#include <hmoe/experts/glu.hpp>

using namespace hmoe;

struct no_derivative {
  template <class T> static T value(T z) { return z; }
};

#ifdef HMOE_MUST_COMPILE
using bank = experts::glu_bank<float, experts::gpt_oss_gate>;
#else
using bank = experts::glu_bank<float, no_derivative>;
#endif

inline const bank made{4, {1, 2}};
