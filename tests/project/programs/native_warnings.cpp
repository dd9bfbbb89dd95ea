// SPDX-License-Identifier: MIT
// With all instructions of this CPU, no usual warning comes from the library or from what it includes (but for Eigen's
// unused variables).
// flags: -O1 -march=native -Wall -Wextra -Werror
// flags: -O1 -march=native -Wall -Wextra -Werror -Wno-unused-variable -DWITH_EIGEN
#include <cstddef>

#if defined(WITH_EIGEN)
#include <hmoe/interop/eigen.hpp>

float positive(const float* values, std::size_t count) {
  return Eigen::Map<const Eigen::ArrayXf>(values, static_cast<Eigen::Index>(count)).exp().sum();
}
#else
#include <hmoe/backends/simd.hpp>
#include <hmoe/routing/score_functions/softmax.hpp>

float positive(const float* values, std::size_t count) {
  float p[20];
  hmoe::backends::simd<>{}.score(hmoe::routing::softmax{}, hmoe::vector_view<const float>(values, count),
                                 hmoe::vector_view<float>(p, count));
  return p[0];
}
#endif

int main() {
  const float values[20] = {};
  return positive(values, 20) > 0 ? 0 : 1;
}
