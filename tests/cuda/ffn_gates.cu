// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/experts/gpt_oss_glu.hpp>

#include "cuda/backward_checks.hpp"
#include "cuda/forward_checks.hpp"
#include "cuda/small_tiles.hpp"

#include <doctest/doctest.h>

using namespace cuda_checks;

namespace {

TEST_CASE("Experts of gpt-oss in half precision: a gate with state, and biases") {
  constexpr std::size_t d = 28; // rows need padding
  using gpt_oss = experts::gpt_oss_glu_bank<float>;
  // A low limit, so that many values are clamped; one that no value rounds to.
  auto bank = random_weights(gpt_oss(d, {5, 1, 34, 16}, {.limit = 0.50003, .alpha = 1.3}));
  round_weights<half>(bank);
  const device_weights<half, 2> weights(bank.weights(), experts_before);
  for (const forward_case& batch : forward_cases)
    check_forward<2, half>(bank, weights, bank.gate_function(), batch, {});
  for (const bool gather : {true, false})
    check_backward<2, half>(bank, [](const gpt_oss& b) -> auto& { return b.weights(); }, bank.gate_function(),
                            {17, load::random, gather}, {});
}

} // namespace
