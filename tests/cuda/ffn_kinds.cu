// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/experts/low_rank.hpp>
#include <hmoe/experts/mlp.hpp>

#include "cuda/backward_checks.hpp"
#include "cuda/forward_checks.hpp"
#include "cuda/small_tiles.hpp"

#include <doctest/doctest.h>

using namespace cuda_checks;

namespace {

constexpr std::size_t d = 28; // rows of 16-bit values need padding
const std::vector<std::size_t> ragged{5, 1, 34, 16};
const backward_case way_back{17, load::random, true}, way_back_by_slot{17, load::random, false};

/// Of a bank that is a feed-forward one below a few more words; low_rank_bank does not show the weights as a whole.
struct low_rank_weights {
  const experts::low_rank_bank<float>& bank;
  std::size_t d_model() const { return bank.d_model(); }
  std::size_t size() const { return bank.size(); }
  std::size_t width(std::size_t e) const { return bank.width(e); }
  static bool has_biases() { return false; }
  matrix_view<const float> lane(std::size_t e, std::size_t) const { return bank.a(e); }
  matrix_view<const float> output(std::size_t e) const { return bank.b(e); }
  static matrix_view<const float> lane_bias(std::size_t, std::size_t) { return {}; }
  static matrix_view<const float> output_bias(std::size_t) { return {}; }
};

TEST_CASE("Perceptrons: one lane and an activation") {
  using mlp = experts::mlp_bank<float, experts::gelu>;
  auto bank = random_weights(mlp(d, ragged, experts::biases::all));
  round_weights<bfloat16>(bank);
  const device_weights<bfloat16, 1> weights(bank.weights(), experts_before);
  for (const forward_case& batch : forward_cases)
    check_forward<1, bfloat16>(bank, weights, experts::gelu{}, batch, {});
  check_backward<1, bfloat16>(bank, [](const mlp& b) -> auto& { return b.weights(); }, experts::gelu{}, way_back, {});
}

TEST_CASE("Low-rank experts add their input, and the gradient goes past them too") {
  using low_rank = experts::low_rank_bank<float>;
  auto bank = random_weights(low_rank(d, ragged));
  round_weights<bfloat16>(bank);
  const device_weights<bfloat16, 1> weights(low_rank_weights{bank}, experts_before);
  for (const forward_case& batch : forward_cases)
    check_forward<1, bfloat16>(bank, weights, experts::linear{}, batch, {.residual = true});
  check_backward<1, bfloat16>(bank, [](const low_rank& b) { return low_rank_weights{b}; }, experts::linear{}, way_back,
                              {.residual = true});
  check_backward<1, bfloat16>(bank, [](const low_rank& b) { return low_rank_weights{b}; }, experts::linear{},
                              way_back_by_slot, {.residual = true});
}

} // namespace
