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

/// What backward has for the tokens first … first + count − 1, which all go to both experts of the bank: gradients of
/// gate weights and of rows, expert by expert.
template <class S>
std::vector<std::vector<float>> gradients_of(const glu& bank, const device_weights<S, 2>& weights,
                                             const device_tokens<S>& x, const device_tokens<S>& dy,
                                             const std::vector<float>& gates, std::size_t first, std::size_t count,
                                             const device::ffn_options& options) {
  const std::size_t d = bank.d_model(), hidden_stride = device::ffn_hidden_stride<S>(weights.widest), rows = 2 * count;
  const auto n = static_cast<index_t>(count);
  std::vector<index_t> tokens, entries;
  for (index_t e = 0; e < 2; ++e)
    for (index_t t = 0; t < n; ++t) {
      tokens.push_back(t);
      entries.push_back(2 * t + e);
    }
  const device_array token_ids(tokens), entry_ids(entries), offsets(std::vector<index_t>{0, n, 2 * n});
  const device_array<float> gate_weights(
      std::vector<float>(gates.begin() + 2 * first, gates.begin() + 2 * (first + count)));
  const device::plan_arrays plan{offsets.data(), token_ids.data(), entry_ids.data(), nullptr, 2, 2 * n};
  device_array<S> activated(rows * hidden_stride), projected(rows * 2 * hidden_stride),
      d_projected(rows * 2 * hidden_stride);
  device_array<float> outputs(rows * d), dots(rows * device::dot_parts(hidden_stride)), d_weights(rows),
      d_rows(rows * d), d_in(std::vector<float>(weights.in_size)), d_out(std::vector<float>(weights.out_size)),
      d_in_bias(std::vector<float>(weights.in_bias_size)), d_out_bias(std::vector<float>(2 * d));
  device_array<std::byte> workspace(device::ffn_workspace_bytes(2));
  const device::row_source<S> source{x.values.data() + first * x.stride, token_ids.data(), x.stride},
      from{dy.values.data() + first * dy.stride, token_ids.data(), dy.stride};
  device::ffn_forward<2>(
      nullptr, target, plan, weights.arrays,
      device::ffn_forward_arrays<S>{source, activated.data(), projected.data(), outputs.data(), hidden_stride},
      bank.gate_function(), workspace.data(), options);
  device::ffn_backward<2>(nullptr, target, plan, weights.arrays,
                          device::ffn_backward_arrays<S>{source,
                                                         from,
                                                         {gate_weights.data(), entry_ids.data()},
                                                         projected.data(),
                                                         d_projected.data(),
                                                         activated.data(),
                                                         dots.data(),
                                                         d_weights.data(),
                                                         d_rows.data(),
                                                         hidden_stride},
                          device::ffn_gradient_arrays{d_in.data(), d_out.data(), d_in_bias.data(), d_out_bias.data()},
                          bank.gate_function(), workspace.data(), options);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  const auto by_entry = d_weights.download(), by_slot = d_rows.download();
  std::vector<std::vector<float>> result;
  for (std::size_t slot = 0; slot < rows; ++slot) {
    result.emplace_back(by_slot.begin() + slot * d, by_slot.begin() + (slot + 1) * d);
    result.back().push_back(by_entry[entries[slot]]);
  }
  return result;
}

/// By all sizes of tiles, each of the tokens alone and many together.
template <class S> void check_bits(device::float_math math = device::float_math::f32) {
  constexpr std::size_t d = 24, all = 70;
  const glu bank = random_weights(glu(d, {75, 3}, experts::biases::all));
  const device_weights<S, 2> weights(bank.weights(), 0);
  support::random_source random(6);
  const device_tokens<S> x(random, all, d, d), dy(random, all, d, d);
  std::vector<float> gates(2 * all);
  for (float& w : gates)
    w = static_cast<float>(random.real(0.1, 1));
  const auto together = gradients_of<S>(bank, weights, x, dy, gates, 0, all, {math, false, device::tile_size::large});
  for (const auto tiles : {device::tile_size::small, device::tile_size::large, device::tile_size::largest})
    for (const auto& [first, count] : {std::pair<std::size_t, std::size_t>{69, 1}, {30, 40}}) {
      const auto apart = gradients_of<S>(bank, weights, x, dy, gates, first, count, {math, false, tiles});
      for (std::size_t e = 0; e < 2; ++e)
        for (std::size_t t = 0; t < count; ++t)
          CHECK(apart[e * count + t] == together[e * all + first + t]);
    }
}

TEST_CASE("Gradients of a token and its gate weights have the same bits in any batch, by any tiles") {
  check_bits<bfloat16>();
  check_bits<float>();
  check_bits<float>(device::float_math::tf32);
}

TEST_CASE("Gradients of glu experts of any widths are the reference's: bfloat16") { check_all<bfloat16>(); }
TEST_CASE("Gradients of glu experts of any widths are the reference's: float") { check_all<float>(); }
TEST_CASE("Gradients of glu experts of any widths are the reference's: tf32") {
  check_all<float>(device::float_math::tf32);
}

TEST_CASE("Backward without races: bfloat16 [race]") { check_races<bfloat16>(); }
TEST_CASE("Backward without races: float [race]") { check_races<float>(); }
TEST_CASE("Backward without races: tf32 [race]") { check_races<float>(device::float_math::tf32); }

} // namespace
