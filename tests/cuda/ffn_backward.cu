// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/experts/glu.hpp>

#include "cuda/backward_checks.hpp"
#include "cuda/forward_checks.hpp"

#include <doctest/doctest.h>

using namespace cuda_checks;

namespace {

using glu = experts::glu_bank<float, experts::silu>;
constexpr auto weights_of = [](const glu& bank) -> const experts::ffn_weights<float, 2>& { return bank.weights(); };

template <class S>
void check(std::size_t d, std::vector<std::size_t> widths, experts::biases biases, const backward_case& batch,
           device::ffn_options options = {}) {
  glu bank = random_weights(glu(d, std::move(widths), biases));
  round_weights<S>(bank);
  check_backward<2, S>(bank, weights_of, bank.gate_function(), batch, options);
}

template <class S> void check_all(device::float_math math = device::float_math::f32) {
  const device::ffn_options plain{math};
  const std::vector<std::size_t> ragged{1, 40, 7, 33, 16};
  check<S>(24, ragged, experts::biases::all, {23, load::random, false}, plain);
  check<S>(24, ragged, experts::biases::all, {9, load::every_third, true}, plain);
  check<S>(24, ragged, experts::biases::all, {0, load::random, true}, plain);
  check<S>(24, ragged, experts::biases::none, {1, load::random, false}, plain);
  check<S>(50, {9, 17}, experts::biases::none, {12, load::random, true, 50}, plain); // rows without alignment
  check<S>(1, {1}, experts::biases::all, {5, load::random, false, 1}, plain);
  check<S>(136, {3, 130}, experts::biases::all, {260, load::random, true}, plain); // the tiles for many rows
  if constexpr (sizeof(S) == 2) {
    const device::ffn_options largest{math, false, device::tile_size::largest};
    check<S>(136, {3, 130}, experts::biases::all, {290, load::one_expert, true}, largest); // two tiles of 256 rows
    check<S>(50, {9, 17}, experts::biases::none, {12, load::random, true, 50}, largest);
  }
}

template <class S> void check_races(device::float_math math = device::float_math::f32) {
  const device::ffn_options plain{math};
  check<S>(40, {7, 33}, experts::biases::all, {11, load::random, true}, plain);
  check<S>(70, {40}, experts::biases::none, {200, load::one_expert, false}, plain);
  if constexpr (sizeof(S) == 2)
    check<S>(70, {20}, experts::biases::none, {40, load::one_expert, false}, {math, false, device::tile_size::largest});
}

TEST_CASE("Gradients of glu experts of any widths are the reference's: bfloat16") { check_all<bfloat16>(); }
TEST_CASE("Gradients of glu experts of any widths are the reference's: float") { check_all<float>(); }
TEST_CASE("Gradients of glu experts of any widths are the reference's: tf32") {
  check_all<float>(device::float_math::tf32);
}

TEST_CASE("The way back without races: bfloat16 [race]") { check_races<bfloat16>(); }
TEST_CASE("The way back without races: float [race]") { check_races<float>(); }
TEST_CASE("The way back without races: tf32 [race]") { check_races<float>(device::float_math::tf32); }

} // namespace
