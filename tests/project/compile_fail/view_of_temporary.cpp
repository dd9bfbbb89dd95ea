// SPDX-License-Identifier: MIT
// expect: hmoe: a temporary matrix was given as an output, or as the source of a view to write through
#include <hmoe/core/matrix.hpp>

using namespace hmoe;

matrix<float> make_matrix();

void fill() {
#ifdef HMOE_MUST_COMPILE
  matrix<float> made = make_matrix();
  matrix_view<float> view = made;
#else
  matrix_view<float> view = make_matrix();
#endif
  view(0, 0) = 1;
}
