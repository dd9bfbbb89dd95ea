// SPDX-License-Identifier: MIT
// Nested widths of packed banks: the bits of a layer that was packed at these widths.
#include <hmoe/backends/simd.hpp>
#include <hmoe/compress/nested.hpp>
#include <hmoe/compress/possible_bank.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"
#include "support/same_bits.hpp"

#include <doctest/doctest.h>

#include <utility>
#include <vector>

namespace compress = hmoe::compress;
namespace experts = hmoe::experts;
namespace formats = hmoe::backends::formats;
using hmoe::matrix;

namespace {
using simd = hmoe::backends::simd<>;
using narrow_layer =
    hmoe::moe_layer<hmoe::expert_set<experts::glu_bank<float, experts::silu>, experts::mlp_bank<float, experts::relu>>,
                    hmoe::routing::top_k_router<float>, hmoe::dispatch::scattered>;
constexpr std::size_t narrow_d = 72; // the last output panel is not full

narrow_layer make_narrow_layer() {
  narrow_layer layer{
      hmoe::expert_set{hmoe::expert_ids{{{0, 2, 3}, {1}}},
                       experts::glu_bank<float, experts::silu>(narrow_d, {96, 70, 64}, experts::biases::all),
                       experts::mlp_bank<float, experts::relu>(narrow_d, {128})},
      hmoe::routing::top_k_router<float>(narrow_d, 4, 3)};
  support::random_source random(21);
  layer.visit_parameters([&](const hmoe::parameter_info&, auto view) { support::fill(random, view, 0.3); });
  return layer;
}
template <class Format> void check_packed_prefixes(const narrow_layer& layer) {
  const auto packed = simd::pack<Format>(layer);
  const hmoe::context ctx{hmoe::backends::simd{}};
  support::random_source random(22);
  const auto x = support::random_matrix<float>(random, 60, narrow_d);
  for (const auto& widths : {std::vector<std::size_t>{64, 96, 70, 32}, {32, 0, 0, 64}, {96, 128, 70, 64}}) {
    const compress::nested part{packed, widths};
    const auto cut = simd::pack<Format>(compress::nested{layer, widths}.cut());
    CHECK(part.experts().bytes(0) == cut.experts().bytes(0));
    CHECK(part.experts().template bank<0>().weights().panels().data() ==
          packed.experts().template bank<0>().weights().panels().data());
    for (const std::size_t tokens : {1U, 2U, 60U}) {
      CAPTURE(tokens);
      matrix<float> y(tokens, narrow_d), expected(tokens, narrow_d);
      part.forward(ctx, x.view().row_block(0, tokens), y);
      cut.forward(ctx, x.view().row_block(0, tokens), expected);
      CHECK(support::same_bits(y, expected));
    }
  }
}
} // namespace

TEST_CASE("packed banks run at smaller widths without a copy, with the bits of a layer packed at them") {
  const auto layer = make_narrow_layer();
  check_packed_prefixes<formats::f32>(layer);
  check_packed_prefixes<formats::q8>(layer);
}

TEST_CASE("widths that would cut a block of weights are refused, and banks without an expert have none") {
  const auto layer = make_narrow_layer();
  const auto packed = simd::pack<formats::q8>(layer);
  CHECK(support::error_of([&] { (void)compress::nested(packed, {96, 128, 33, 64}); }) ==
        "hmoe: expert 1 shall run at width 33, packed is 70: possible are that and smaller multiples of 32");
  CHECK(support::error_of([&] { (void)compress::nested(packed, {128, 128, 70, 64}); }) ==
        "hmoe: expert 0 shall run at width 128, packed is 96: possible are that and smaller multiples of 32");
  using bank = std::remove_cvref_t<decltype(packed.experts().bank<1>())>;
  const compress::possible_bank<bank> none(narrow_d), some(packed.experts().bank<1>());
  CHECK(none.prefix({}).size() == 0);
  const std::vector<std::size_t> widths{64};
  CHECK(some.prefix({widths.data(), 1}).width(0) == 64);
  CHECK(some.width(0) == 128);
  CHECK(support::error_of([&] { (void)some.bank()->prefix({widths.data(), 1}).values(); }) ==
        "hmoe: packed experts at smaller widths have no panels of their own: take the values of the bank that they are "
        "part of");
}
