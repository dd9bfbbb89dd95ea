// SPDX-License-Identifier: MIT
// expect: hmoe::expert_set: an element of Banks is no expert: it lacks value_type
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
expert_set experts{hmoe::experts::glu_bank<float, hmoe::experts::silu>(4, {1, 2})};
#else
expert_set experts{42};
#endif
