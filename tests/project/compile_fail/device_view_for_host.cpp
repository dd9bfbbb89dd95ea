// SPDX-License-Identifier: MIT
// expect: a matrix_view of one memory space was given where the other is expected
#include <hmoe/core/matrix_view.hpp>

using namespace hmoe;

float first(matrix_view<const float> on_host) { return on_host(0, 0); }

#ifdef HMOE_MUST_COMPILE
float call(matrix_view<const float, host_space> view) { return first(view); }
#else
float call(matrix_view<const float, device_space> view) { return first(view); }
#endif
