// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/padded.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/any_expert.hpp>
#include <hmoe/experts/constant.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/gpt_oss_glu.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/experts/low_rank.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/experts/zero.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/shared/always_on.hpp>

#include "experts/diagonal_expert.hpp"
#include "support/layer_gradients.hpp"

#include <doctest/doctest.h>

#include <utility>

namespace {

using namespace hmoe;

constexpr std::size_t d = 5;

/// Every kind there is, each of its own width; the last two experts are shared, and wider than the others.
auto all_kinds() {
  return expert_set{experts::glu_bank<double, experts::silu>(d, {1, 4}),
                    experts::identity_bank<double>(d),
                    experts::zero_bank<double>(d),
                    experts::constant_bank<double>(d),
                    experts::low_rank_bank<double>(d, {2}),
                    experts::gpt_oss_glu_bank<double>(d, {3}),
                    experts::any_expert<double>(bank_checks::diagonal_expert<double>(d)),
                    experts::mlp_bank<double, experts::gelu>(d, {7}),
                    experts::glu_bank<double, experts::gelu_tanh>(d, {9})};
}

auto router_with_shared() {
  return routing::router<routing::linear<double>, routing::top_k<>, routing::renormalized, routing::always_on>(
      d, 8, 3, {}, routing::always_on{2});
}

template <class Dispatch> auto mixed_layer(Dispatch dispatch) {
  moe_layer layer{all_kinds(), router_with_shared(), dispatch};
  support::random_source random(61);
  support::randomize(layer, random);
  return layer;
}

} // namespace

TEST_CASE("a layer of all kinds is the weighted sum of its experts, shared ones with weight 1") {
  const auto layer = mixed_layer(dispatch::sorted{});
  CHECK(layer.size() == 10);
  CHECK(layer.widths()[8] == 7);
  CHECK(layer.widths()[9] == 9);
  support::random_source random(62);
  const std::size_t tokens = 40;
  const auto x = support::random_matrix<double>(random, tokens, d);
  matrix<double> y(tokens, d);
  auto tape = layer.make_tape(tokens);
  layer.forward(context{backends::reference{}}, x, y, tape);
  for (std::size_t e = 0; e < 8; ++e)
    CHECK(tape.trace().tokens_per_expert()[e] > 0);

  const auto& assigned = std::as_const(tape).assignment();
  const auto& set = layer.experts();
  matrix<double> expected(tokens, d);
  for (std::size_t t = 0; t < tokens; ++t) {
    const auto ids = assigned.experts_of(t);
    REQUIRE(ids.size() == 5);
    CHECK(ids[3] == 8);
    CHECK(ids[4] == 9);
    CHECK(assigned.weights_of(t)[3] == 1);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      matrix<double> out(1, d), saved(1, set.saved_per_row(ids[i]));
      set.forward(backends::reference{}, ids[i], x.view().row_block(t, 1), out.view(), saved.view());
      for (std::size_t c = 0; c < d; ++c)
        expected(t, c) += assigned.weights_of(t)[i] * out(0, c);
    }
  }
  CHECK(support::largest_difference(y.view(), expected.view()) == 0);
}

TEST_CASE("gradients of a layer of all kinds agree with finite differences under every dispatch") {
  const context ctx{backends::reference{}};
  support::random_source random(63);
  const auto x = support::random_matrix<double>(random, 12, d), dy = support::random_matrix<double>(random, 12, d);
  const auto check = [&](auto dispatch) {
    auto layer = mixed_layer(dispatch);
    const auto [error, where] = support::layer_gradient_error(ctx, layer, x, dy);
    CAPTURE(where);
    CHECK(error <= 1e-6);
  };
  check(dispatch::sorted{});
  check(dispatch::looped{});
  check(dispatch::dense{});
  check(dispatch::padded{capacity::busiest{}});
  check(dispatch::sorted{capacity::moe_plus_plus{0.8}});
}
