// SPDX-License-Identifier: MIT
// expect: hmoe::expert_set: Banks differ in value_type: give all of them float, or all of them double
// alone
#include <hmoe/hmoe.hpp>

using namespace hmoe;

#ifdef HMOE_MUST_COMPILE
using scalar = float;
#else
using scalar = double;
#endif

expert_set experts{hmoe::experts::glu_bank<float, hmoe::experts::silu>(4, {1, 2}),
                   hmoe::experts::mlp_bank<scalar, hmoe::experts::relu>(4, {1, 2})};
