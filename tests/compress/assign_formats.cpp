// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>
#include <hmoe/compress/assign_formats.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/routing/router.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"
#include "support/same_bits.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <utility>
#include <vector>

namespace compress = hmoe::compress;
namespace formats = hmoe::backends::formats;
using compress::format_cost;
using hmoe::matrix;
using list = std::vector<std::size_t>;

TEST_CASE("formats grow where a byte lowers the error most") {
  const std::vector<std::vector<format_cost>> costs{
      {{10, 8.0}, {20, 1.0}, {40, 0.0}}, // 0.7 per byte, then 0.05; all at once 0.267
      {},
      {{10, 2.0}, {20, 3.0}, {40, 0.5}}, // 0.05 per byte; the middle one is worse than the first
      {{20, 1.0}, {10, 4.0}, {10, 5.0}}, // 0.3
  };
  CHECK(compress::choose_formats(costs, 30) == list{0, 0, 0, 1});
  CHECK(compress::choose_formats(costs, 39) == list{0, 0, 0, 1});
  CHECK(compress::choose_formats(costs, 40) == list{1, 0, 0, 1});
  CHECK(compress::choose_formats(costs, 50) == list{1, 0, 0, 0});
  CHECK(compress::choose_formats(costs, 70) == list{2, 0, 0, 0});
  CHECK(compress::choose_formats(costs, 100) == list{2, 0, 2, 0});
  CHECK(support::error_of([&] { (void)compress::choose_formats(costs, 29); }) ==
        "hmoe: the smallest formats of all experts take 30 bytes, allowed are 29");
}

TEST_CASE("a layer of several formats is that of experts packed one by one, within its bytes") {
  using glu = hmoe::experts::glu_bank<float, hmoe::experts::silu>;
  constexpr std::size_t d = 64;
  // Expert 1 is an identity; experts of one layer differ in size and in the scale of what they return.
  hmoe::moe_layer layer{hmoe::expert_set{hmoe::expert_ids{{{0, 2, 3}, {1}}}, glu(d, {64, 40, 96}),
                                         hmoe::experts::identity_bank<float>(d)},
                        hmoe::routing::top_k_router<float>(d, 4, 2), hmoe::dispatch::sorted{}};
  layer.initialize(hmoe::seed{3});
  for (std::size_t r = 0; r < d; ++r)
    for (float& value : layer.experts().bank<0>().down(2).row(r))
      value *= 0.01F;
  support::random_source random(4);
  const auto x = support::random_matrix<float>(random, 24, d);
  const hmoe::context ctx{hmoe::backends::simd{}};
  const auto all_bytes = [&](const auto& packed) {
    std::size_t bytes = 0;
    for (std::size_t e = 0; e < 4; ++e)
      bytes += packed.bytes(e);
    return bytes;
  };
  const auto q8 = hmoe::backends::simd<>::pack<formats::q8>(layer.experts());
  const auto q4 = hmoe::backends::simd<>::pack<formats::q4>(layer.experts());
  // Room for two of three experts in 8 bits: the one whose outputs are small stays at 4.
  const std::size_t bytes = q8.bytes(0) + q8.bytes(2) + q4.bytes(3);
  auto small = compress::assign_formats<formats::q8, formats::q4>(ctx, layer, x, bytes);
  CHECK(small.chosen == list{0, 0, 0, 1});
  CHECK(small.costs[1].empty());
  CHECK(small.report.bytes == bytes);
  CHECK(small.layer.experts().ids().of_bank == std::vector<list>{{0, 2}, {3}, {1}});
  // The router's weights on the outputs of experts that are packed as a whole.
  matrix<float> y(24, d), expected(24, d), part(24, d);
  small.layer.forward(ctx, x, y);
  auto tape = layer.make_tape(24);
  layer.forward(ctx, x, part, tape);
  const auto whole_8 = layer.with_experts(q8);
  double error = 0;
  for (std::size_t e = 0; e < 4; ++e)
    for (std::size_t t = 0; t < 24; ++t)
      for (std::size_t a = tape.assignment().offsets()[t]; a < tape.assignment().offsets()[t + 1]; ++a) {
        if (tape.assignment().experts()[a] != e)
          continue;
        matrix<float> out(1, d);
        const auto one = hmoe::expert_rows<float>::forward(e, x.view().row_block(t, 1), out, {});
        const hmoe::vector_view<const hmoe::expert_rows<float>> rows(&one, 1);
        e == 3 ? q4.forward_rows(ctx, rows) : q8.forward_rows(ctx, rows);
        for (std::size_t i = 0; i < d; ++i) {
          const float w = tape.assignment().weights()[a];
          expected(t, i) += w * out(0, i);
          error += std::pow(w * (out(0, i) - tape.expert_output()(tape.plan().slots()[a], i)), 2) / 24;
        }
      }
  CHECK(support::largest_difference(y.view(), expected.view()) < 1e-6);
  CHECK(*small.report.predicted == doctest::Approx(error).epsilon(1e-4));
  const auto& change = small.measure(ctx, layer, x);
  CHECK(change.squared > 0.2 * *small.report.predicted);
  CHECK(change.squared < 5 * *small.report.predicted);
  // With room for all of them nothing is in 4 bits, and no bank of it has an expert.
  const auto large = compress::assign_formats<formats::q8, formats::q4>(ctx, layer, x, all_bytes(q8));
  CHECK(large.layer.experts().ids().of_bank == std::vector<list>{{0, 2, 3}, {}, {1}});
  hmoe::workspace memory;
  const hmoe::context own{hmoe::backends::simd{}, hmoe::executors::serial{}, memory};
  memory.reserve(large.layer.workspace_bytes(own, 24));
  large.layer.forward(own, x, y);
  whole_8.forward(ctx, x, expected);
  CHECK(support::same_bits(y, expected));
  CHECK(memory.peak() <= large.layer.workspace_bytes(own, 24));
}
