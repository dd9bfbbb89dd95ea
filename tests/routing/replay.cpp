// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/replay.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/weightings/on_input_side.hpp>
#include <hmoe/routing/weightings/sigmoid_of_logit.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstring>

namespace {

constexpr std::size_t tokens = 11, d_model = 6;
const std::vector<std::size_t> widths{3, 5, 8, 2};
using bank_type = hmoe::experts::glu_bank<float, hmoe::experts::silu>;

template <class A, class B> bool same_bits(const A& a, const B& b) {
  return a.size() == b.size() && (a.size() == 0 || std::memcmp(a.data(), b.data(), a.size() * sizeof(*a.data())) == 0);
}

} // namespace

TEST_CASE("a layer with a replayed routing gives the bits of the layer that was recorded") {
  static_assert(hmoe::router_policy<hmoe::routing::replay<float>>);
  support::random_source random(221);
  const hmoe::context ctx{hmoe::backends::reference{}};
  const auto x = support::random_matrix<float>(random, tokens, d_model);
  hmoe::moe_layer layer{hmoe::expert_set{bank_type(d_model, widths)},
                        hmoe::routing::top_p_router<float>(d_model, 4, hmoe::routing::top_p{0.7})};
  layer.initialize(hmoe::seed{3});
  auto tape = layer.make_tape(tokens);
  hmoe::matrix<float> y(tokens, d_model), again(tokens, d_model);
  layer.forward(ctx, x.view(), y.view(), tape);

  const auto& trace = std::as_const(tape).trace();
  const auto copy = [](hmoe::matrix_view<const float> from) {
    hmoe::matrix<float> to(from.rows(), from.cols());
    std::memcpy(to.data(), from.data(), from.size() * sizeof(float));
    return to;
  };
  hmoe::moe_layer replayed{
      layer.experts(),
      hmoe::routing::replay<float>(d_model, 4, tape.assignment(), copy(trace.logits()), copy(trace.probabilities()))};
  auto second = replayed.make_tape(tokens);
  replayed.forward(ctx, x.view(), again.view(), second);
  CHECK(same_bits(y, again));
  const auto& copied = std::as_const(second).trace();
  CHECK(same_bits(trace.logits(), copied.logits()));
  CHECK(same_bits(trace.probabilities(), copied.probabilities()));
  CHECK(same_bits(trace.tokens_per_expert(), copied.tokens_per_expert()));
  CHECK(same_bits(std::as_const(tape).assignment().weights(), std::as_const(second).assignment().weights()));

  hmoe::matrix<float> inference(tokens, d_model);
  replayed.forward(ctx, x.view(), inference.view());
  CHECK(same_bits(y, inference));
}

TEST_CASE("weights on what experts read are replayed where the router is told so") {
  support::random_source random(223);
  const hmoe::context ctx{hmoe::backends::reference{}};
  const auto x = support::random_matrix<float>(random, tokens, d_model);
  using weighting = hmoe::routing::on_input_side<hmoe::routing::sigmoid_of_logit>;
  hmoe::moe_layer layer{hmoe::expert_set{bank_type(d_model, widths)},
                        hmoe::routing::top_k_router<float, weighting>(d_model, 4, 2)};
  layer.initialize(hmoe::seed{3});
  auto tape = layer.make_tape(tokens);
  hmoe::matrix<float> y(tokens, d_model), again(tokens, d_model);
  layer.forward(ctx, x.view(), y.view(), tape);
  for (const bool on_input : {true, false}) {
    const hmoe::moe_layer replayed{layer.experts(),
                                   hmoe::routing::replay<float>(d_model, 4, tape.assignment(), {}, {}, 0, on_input)};
    replayed.forward(ctx, x.view(), again.view());
    CHECK(same_bits(y, again) == on_input);
  }
}

TEST_CASE("experts get gradients, the router none") {
  support::random_source random(222);
  const hmoe::context ctx{hmoe::backends::reference{}};
  const auto x = support::random_matrix<float>(random, tokens, d_model);
  const auto dy = support::random_matrix<float>(random, tokens, d_model);
  hmoe::assignment<float> one_each;
  one_each.resize_tokens(tokens);
  for (std::size_t t = 0; t < tokens; ++t)
    one_each.offsets()[t + 1] = static_cast<hmoe::index_t>(t + 1);
  one_each.resize_entries();
  for (std::size_t t = 0; t < tokens; ++t) {
    one_each.experts()[t] = static_cast<hmoe::index_t>(t % 3);
    one_each.weights()[t] = 0.5F;
  }
  hmoe::moe_layer layer{hmoe::expert_set{bank_type(d_model, widths)},
                        hmoe::routing::replay<float>(d_model, 4, one_each)};
  layer.initialize(hmoe::seed{3});
  auto tape = layer.make_tape(tokens);
  auto gradients = layer.make_gradients();
  hmoe::matrix<float> y(tokens, d_model), dx(tokens, d_model), unsunk(tokens, d_model);
  layer.forward(ctx, x.view(), y.view(), tape);
  layer.backward(ctx, tape, dy.view(), unsunk.view(), gradients);
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t e = 0; e < 4; ++e) {
      CHECK(tape.trace().probabilities()(t, e) == (e == t % 3 ? 0.5F : 0.0F)); // the weights, for want of better
      tape.trace().d_probabilities()(t, e) = 1e3F;
    }
  CHECK(tape.trace().tokens_per_expert()[0] == 4);
  CHECK(tape.trace().tokens_per_expert()[3] == 0);
  layer.backward(ctx, tape, dy.view(), dx.view(), gradients);
  CHECK(same_bits(dx, unsunk)); // what losses want of the router goes nowhere
  double largest = 0;
  std::size_t of_experts = 0, tensors = 0;
  gradients.visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<float> g) {
    ++tensors;
    of_experts += info.expert != hmoe::parameter_info::no_expert ? 1 : 0;
    for (std::size_t r = 0; r < g.rows(); ++r)
      for (const float value : g.row(r))
        largest = std::max(largest, static_cast<double>(std::abs(value)));
  });
  CHECK(tensors == of_experts);
  CHECK(largest > 0);
}

TEST_CASE("no tokens; shared experts; shapes that do not fit") {
  const hmoe::context ctx{hmoe::backends::reference{}};
  hmoe::moe_layer empty{hmoe::expert_set{bank_type(d_model, widths)}, hmoe::routing::replay<float>(d_model, 4, {})};
  hmoe::matrix<float> none(0, d_model), y(0, d_model), two(2, d_model), out(2, d_model);
  empty.forward(ctx, std::as_const(none).view(), y.view());
  CHECK_THROWS_WITH_AS(empty.forward(ctx, std::as_const(two).view(), out.view()),
                       doctest::Contains("2 tokens, the recorded routing 0"), hmoe::error);

  hmoe::assignment<float> assigned;
  assigned.resize_tokens(1);
  assigned.offsets()[1] = 2;
  assigned.resize_entries();
  assigned.experts()[0] = 1;
  assigned.experts()[1] = 3; // shared
  assigned.weights()[0] = assigned.weights()[1] = 1;
  const hmoe::routing::replay<float> router(d_model, 4, assigned, {}, {}, 3);
  CHECK(router.routed() == 3);
  CHECK(router.size() == 4);
  CHECK(router.max_selected() == 2);
  hmoe::moe_layer layer{hmoe::expert_set{bank_type(d_model, widths)}, router};
  auto tape = layer.make_tape(1);
  hmoe::matrix<float> x(1, d_model), result(1, d_model);
  layer.forward(ctx, std::as_const(x).view(), result.view(), tape);
  CHECK(tape.trace().tokens_per_expert().size() == 3);
  CHECK(tape.trace().tokens_per_expert()[1] == 1);

  using replay = hmoe::routing::replay<float>;
  CHECK_THROWS_WITH_AS(replay(d_model, 3, assigned), doctest::Contains("expert 3 of 3"), hmoe::error);
  CHECK_THROWS_WITH_AS(replay(d_model, 4, assigned, hmoe::matrix<float>(2, 4)), doctest::Contains("logits are 2 x 4"),
                       hmoe::error);
  CHECK_THROWS_WITH_AS(replay(d_model, 4, assigned, {}, hmoe::matrix<float>(1, 4), 3),
                       doctest::Contains("probabilities are 1 x 4"), hmoe::error);
  CHECK_THROWS_AS(replay(d_model, 4, assigned, {}, {}, 5), hmoe::error);
}
