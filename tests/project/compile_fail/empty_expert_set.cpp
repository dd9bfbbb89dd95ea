// SPDX-License-Identifier: MIT
// expect: hmoe::expert_set: Banks is empty: give at least one bank
#include <hmoe/hmoe.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using set = expert_set<experts::glu_bank<float, experts::silu>>;
#else
using set = expert_set<>;
#endif

std::size_t size = sizeof(set);
