// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>

#include "backends/simd/ffn_batches.hpp"

#include <doctest/doctest.h>

namespace {

using hmoe::experts::biases;
using support::expert_passes;

hmoe::context<support::whole_banks, hmoe::executors::openmp> on(std::size_t threads) {
  return hmoe::context{support::whole_banks{}, hmoe::executors::openmp{threads}};
}

} // namespace

TEST_CASE_TEMPLATE("gradients of all experts at once: the bits that expert after expert gives, on any threads", T,
                   float, double) {
  const hmoe::context by_products{support::products_only{}};
  for (const std::size_t d : {3U, 48U, 290U})
    for (const biases bias : {biases::none, biases::all}) {
      const auto experts = support::make_experts<T>(d, {1, 3, 17, 200}, {33, 1, 64}, bias);
      for (const auto& load : support::expert_loads()) {
        CAPTURE(d);
        CAPTURE(load[3]);
        const expert_passes<T> expected(by_products, experts, load);
        for (const std::size_t threads : {1U, 2U, 3U}) {
          const expert_passes<T> ours(on(threads), experts, load);
          CHECK(support::all_same_bits(ours.dx, expected.dx));
          CHECK(support::all_same_bits(ours.gradients, expected.gradients));
        }
      }
    }
}

TEST_CASE_TEMPLATE("experts of width 0 among others: the same bits at once and one by one", T, float, double) {
  for (const hmoe::experts::biases bias : {hmoe::experts::biases::none, hmoe::experts::biases::all}) {
    const auto experts = support::make_experts<T>(17, {0, 3, 0, 40}, {0, 33, 0}, bias);
    for (const auto& load : support::expert_loads()) {
      const support::expert_passes<T> expected(hmoe::context{support::products_only{}}, experts, load),
          ours(on(3), experts, load);
      CHECK(support::all_same_bits(ours.y, expected.y));
      CHECK(support::all_same_bits(ours.unrecorded, expected.y));
      CHECK(support::all_same_bits(ours.dx, expected.dx));
      CHECK(support::all_same_bits(ours.gradients, expected.gradients));
    }
  }
}
