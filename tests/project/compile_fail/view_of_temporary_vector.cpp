// SPDX-License-Identifier: MIT
// expect: hmoe: a temporary range was given as an output, or as the source of a view to write through
#include <hmoe/core/vector_view.hpp>

#include <vector>

using namespace hmoe;

void fill(vector_view<float> values);
float sum(vector_view<const float> values);

float use() {
  std::vector<float> named(3);
  fill(named);
#ifndef HMOE_MUST_COMPILE
  fill(std::vector<float>(3));
#endif
  return sum(std::vector<float>(3));
}
