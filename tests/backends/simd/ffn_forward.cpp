// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>

#include "backends/simd/ffn_batches.hpp"

#include <doctest/doctest.h>

#include <utility>
#include <vector>

namespace {

using hmoe::experts::biases;
using support::expert_passes;

hmoe::context<support::whole_banks, hmoe::executors::openmp> on(std::size_t threads) {
  return hmoe::context{support::whole_banks{}, hmoe::executors::openmp{threads}};
}
const hmoe::context by_products{support::products_only{}};

} // namespace

TEST_CASE_TEMPLATE("all experts at once: the bits that expert after expert gives, on any number of threads", T, float,
                   double) {
  for (const std::size_t d : {1U, 17U, 70U})
    for (const biases bias : {biases::none, biases::all}) {
      const auto experts = support::make_experts<T>(d, {1, 3, 17, 200}, {33, 1, 64}, bias);
      for (const auto& load : support::expert_loads()) {
        CAPTURE(d);
        CAPTURE(load[3]);
        const expert_passes<T> expected(by_products, experts, load);
        for (const std::size_t threads : {1U, 2U, 3U}) {
          const expert_passes<T> ours(on(threads), experts, load);
          CHECK(support::all_same_bits(ours.y, expected.y));
          CHECK(support::all_same_bits(ours.unrecorded, expected.y));
          CHECK(support::all_same_bits(ours.saved, expected.saved));
        }
      }
    }
}

TEST_CASE("experts of a size that makes packing worth while are computed at once, smaller ones one by one") {
  const auto taken = [](std::size_t d, std::vector<std::size_t> widths) {
    return hmoe::backends::simd<>::takes_bank(
        hmoe::experts::glu_bank<float, hmoe::experts::silu>(d, std::move(widths)));
  };
  CHECK(taken(768, {864, 2208}));
  CHECK(taken(256, {1, 255}));
  CHECK(!taken(255, {1000, 1000}));
  CHECK(!taken(256, {1, 254}));
  CHECK(!taken(64, {72, 184}));
  // And both ways have the same bits through the backend itself.
  const auto experts = support::make_experts<float>(256, {300, 90, 1}, {1, 3, 3, 2}, biases::all);
  const hmoe::context ctx{hmoe::backends::simd<>{}, hmoe::executors::openmp{2}};
  for (const auto& load : support::expert_loads()) {
    const expert_passes<float> expected(by_products, experts, load), ours(ctx, experts, load);
    CHECK(support::all_same_bits(ours.y, expected.y));
    CHECK(support::all_same_bits(ours.dx, expected.dx));
    CHECK(support::all_same_bits(ours.gradients, expected.gradients));
  }
}

TEST_CASE("one huge expert beside many tiny ones, in more than one chunk and wave") {
  std::vector<std::size_t> widths(30, 2), load(32, 3);
  widths.push_back(1500);
  load[30] = 2500;
  const auto experts = support::make_experts<float>(70, widths, {5}, biases::all);
  const expert_passes<float> expected(by_products, experts, load);
  for (const std::size_t threads : {1U, 3U}) {
    const expert_passes<float> ours(on(threads), experts, load);
    CHECK(support::all_same_bits(ours.y, expected.y));
    CHECK(support::all_same_bits(ours.unrecorded, expected.y));
    CHECK(support::all_same_bits(ours.dx, expected.dx));
    CHECK(support::all_same_bits(ours.gradients, expected.gradients));
  }
}
