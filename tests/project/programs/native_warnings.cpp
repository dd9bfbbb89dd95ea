// SPDX-License-Identifier: MIT
// With all instructions of this CPU, no usual warning comes from the library or from what it includes.
// flags: -O1 -march=native -Wall -Wextra -Werror
#include <hmoe/backends/simd.hpp>
#include <hmoe/routing/score_functions/softmax.hpp>

#include <cstddef>

int main() {
  constexpr std::size_t experts = 20;
  const float logits[experts] = {};
  float p[experts];
  hmoe::backends::simd<>{}.score(hmoe::routing::softmax{}, hmoe::vector_view<const float>(logits, experts),
                                 hmoe::vector_view<float>(p, experts));
  return p[0] > 0 ? 0 : 1;
}
