// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/experts/glu.hpp>

#include "cuda/forward_checks.hpp"

#include <doctest/doctest.h>

using namespace cuda_checks;

namespace {

using glu = experts::glu_bank<float, experts::silu>;

/// Outputs of the tokens first … first + count − 1 of x, which all go to both experts of the bank: [2 · count × d].
template <class S>
std::vector<float> outputs(const glu& bank, const device_weights<S, 2>& weights, const device_tokens<S>& x,
                           std::size_t first, std::size_t count, const device::ffn_options& options) {
  const std::size_t d = bank.d_model(), hidden_stride = device::ffn_hidden_stride<S>(weights.widest);
  const auto n = static_cast<index_t>(count);
  std::vector<index_t> tokens;
  for (std::size_t e = 0; e < 2; ++e)
    for (index_t t = 0; t < n; ++t)
      tokens.push_back(t);
  const device_array device_tokens(tokens), offsets(std::vector<index_t>{0, n, 2 * n});
  const device::plan_arrays plan{offsets.data(), device_tokens.data(), nullptr, nullptr, 2, 2 * n};
  device_array<S> activated(2 * count * hidden_stride);
  device_array<float> result(2 * count * d);
  device_array<std::byte> workspace(device::ffn_workspace_bytes(2));
  device::ffn_forward<2>(
      nullptr, target, plan, weights.arrays,
      device::ffn_forward_arrays<S>{{x.values.data() + first * x.stride, device_tokens.data(), x.stride},
                                    activated.data(),
                                    nullptr,
                                    result.data(),
                                    hidden_stride},
      bank.gate_function(), workspace.data(), options);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  return result.download();
}

/// With 270 tokens for each expert the large tiles are used, with few the small ones; then each by name.
template <class S> void check_bits(device::float_math math = device::float_math::f32) {
  constexpr std::size_t d = 104, all = 270;
  glu bank = random_weights(glu(d, {75, 3}, experts::biases::all));
  const device_weights<S, 2> weights(bank.weights(), 0);
  support::random_source random(6);
  const device_tokens<S> x(random, all, d, device::ffn_hidden_stride<S>(d));
  const std::vector<float> together = outputs<S>(bank, weights, x, 0, all, {math});
  for (const auto& [first, count] : {std::pair<std::size_t, std::size_t>{0, 1}, {269, 1}, {13, 3}, {230, 40}}) {
    const std::vector<float> apart = outputs<S>(bank, weights, x, first, count, {math});
    for (std::size_t e = 0; e < 2; ++e)
      for (std::size_t t = 0; t < count; ++t)
        CHECK(std::equal(apart.begin() + (e * count + t) * d, apart.begin() + (e * count + t + 1) * d,
                         together.begin() + (e * all + first + t) * d));
  }
  for (const auto size : {device::tile_size::small, device::tile_size::large, device::tile_size::largest})
    CHECK(outputs<S>(bank, weights, x, 0, all, {math, false, size}) == together);
}

TEST_CASE("An expert's output for a token has the same bits in any batch, by any tiles: bfloat16") {
  check_bits<bfloat16>();
}
TEST_CASE("An expert's output for a token has the same bits in any batch, by any tiles: float") { check_bits<float>(); }
TEST_CASE("An expert's output for a token has the same bits in any batch, by any tiles: tf32") {
  check_bits<float>(device::float_math::tf32);
}

TEST_CASE("Tiles follow from the rows of an expert, the device, and how many tiles there are") {
  using device::chosen_tiles, device::tile_size;
  constexpr int a100 = 108, h100 = 132; // multiprocessors
  CHECK(chosen_tiles(90, h100, 63 * 8, 8, 4096) == tile_size::small);
  CHECK(chosen_tiles(90, h100, 64 * 8, 8, 4096) == tile_size::large);
  CHECK(chosen_tiles(90, h100, 511 * 128, 128, 4096) == tile_size::large);
  CHECK(chosen_tiles(90, h100, 512 * 128, 128, 4096) == tile_size::largest);
  CHECK(chosen_tiles(100, 148, 512 * 128, 128, 4096) == tile_size::largest);
  CHECK(chosen_tiles(80, a100, 512 * 128, 128, 4096) == tile_size::large);
  CHECK(chosen_tiles(120, 170, 512 * 128, 128, 4096) == tile_size::large); // GeForce: 100 KiB of shared memory
  // 4,096 tokens of hmoe_0.4b: 32 · 6 tiles of 256 × 128 for 132 multiprocessors; 32,768: 1,536.
  CHECK(chosen_tiles(90, h100, 2 * 4096, 8, 768) == tile_size::large);
  CHECK(chosen_tiles(90, h100, 2 * 32768, 8, 768) == tile_size::largest);
  CHECK(chosen_tiles(90, h100, 528 * 256, 8, 128) == tile_size::largest);
  CHECK(chosen_tiles(90, h100, 527 * 256, 8, 128) == tile_size::large);
}

} // namespace
