// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/experts/glu.hpp>

#include "cuda/forward_checks.hpp"

#include <doctest/doctest.h>

using namespace cuda_checks;

namespace {

using glu = experts::glu_bank<float, experts::silu>;

template <class S>
void check(std::size_t d, std::vector<std::size_t> widths, experts::biases biases, const forward_case& batch,
           device::ffn_options options = {}) {
  glu bank = random_weights(glu(d, std::move(widths), biases));
  round_weights<S>(bank);
  check_forward<2, S>(bank, device_weights<S, 2>(bank.weights(), experts_before), bank.gate_function(), batch, options);
}

template <class S> void check_all(device::float_math math = device::float_math::f32) {
  const device::ffn_options plain{math};
  for (const forward_case& batch : forward_cases) {
    CAPTURE(batch.tokens);
    check<S>(24, {1, 40, 7, 33, 16}, experts::biases::all, batch, plain);
  }
  check<S>(50, {9, 17}, experts::biases::none, {12, load::random, 50}, plain); // rows without alignment
  check<S>(1, {1}, experts::biases::none, {5, load::random, 1}, plain);
  check<S>(136, {70}, experts::biases::none, {260, load::one_expert, 0}, plain); // the tiles for many rows
  if constexpr (sizeof(S) == 2) {
    const device::ffn_options largest{math, false, device::tile_size::largest};
    check<S>(136, {3, 70}, experts::biases::all, {290, load::one_expert, 0}, largest); // two tiles of 256 rows
    check<S>(50, {9, 17}, experts::biases::none, {12, load::random, 50}, largest);
  }
}

template <class S> void check_races(device::float_math math = device::float_math::f32) {
  const device::ffn_options plain{math};
  check<S>(40, {7, 33}, experts::biases::all, {11, load::random, 0}, plain);
  check<S>(70, {40}, experts::biases::none, {260, load::one_expert, 0}, plain);
  if constexpr (sizeof(S) == 2)
    check<S>(70, {20}, experts::biases::none, {40, load::one_expert, 0}, {math, false, device::tile_size::largest});
}

TEST_CASE("glu experts of any widths give the reference's outputs: bfloat16") { check_all<bfloat16>(); }
TEST_CASE("glu experts of any widths give the reference's outputs: float") { check_all<float>(); }
TEST_CASE("glu experts of any widths give the reference's outputs: tf32") {
  check_all<float>(device::float_math::tf32);
}

TEST_CASE("Forward products without races: bfloat16 [race]") { check_races<bfloat16>(); }
TEST_CASE("Forward products without races: float [race]") { check_races<float>(); }
TEST_CASE("Forward products without races: tf32 [race]") { check_races<float>(device::float_math::tf32); }

} // namespace
