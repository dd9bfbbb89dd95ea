// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/dispatch/after_drops.hpp>
#include <hmoe/dispatch/padded.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/constant.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/shared/always_on.hpp>
#include <hmoe/routing/weightings/raw.hpp>

#include "support/counting_resource.hpp"
#include "support/layer_gradients.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory_resource>
#include <utility>
#include <vector>

namespace {

using namespace hmoe;

constexpr std::size_t d = 5;

/// Weights on what experts read.
struct on_what_they_read : routing::renormalized {
  static constexpr bool on_input = true;
};

// The policies that docs/dispatch.md writes.
struct twice_the_median {
  void limits(const capacity::demand& batch, vector_view<std::size_t> limits) const {
    std::vector<std::size_t> rows(batch.rows.begin(), batch.rows.end());
    std::nth_element(rows.begin(), rows.begin() + rows.size() / 2, rows.end());
    std::ranges::fill(limits, std::max<std::size_t>(1, 2 * rows[rows.size() / 2]));
  }
};
struct keep_likeliest { // by probability instead of weight
  template <class T> double priority(const tape<T>& tape, std::size_t token, std::size_t entry) const {
    return tape.trace().probabilities()(token, tape.assignment().experts()[entry]);
  }
};

template <class T> auto some_experts() {
  return expert_set{experts::glu_bank<T, experts::silu>(d, {1, 6, 3, 4}, experts::biases::all),
                    experts::identity_bank<T>(d), experts::constant_bank<T>(d)};
}
template <class T, class Weighting = routing::renormalized, class Dispatch> auto make_layer(Dispatch dispatch) {
  moe_layer layer{some_experts<T>(), routing::top_k_router<T, Weighting>(d, 6, 2), dispatch};
  support::random_source random(71);
  support::randomize(layer, random);
  return layer;
}

/// f(a dispatch) for capacities and orders of all sorts.
template <class F> void for_each_limited(F&& f) {
  f(dispatch::sorted{capacity::by_factor{0.6}});
  f(dispatch::sorted{capacity::by_width{0.8}, capacity::keep_heaviest{}});
  f(dispatch::sorted{capacity::fixed{2}, capacity::keep_first_choices{}});
  f(dispatch::sorted{capacity::moe_plus_plus{0.7, 0.5}, capacity::keep_random{seed{2}}});
  f(dispatch::sorted{twice_the_median{}, keep_likeliest{}});
  f(dispatch::padded{capacity::by_factor{0.6}, capacity::keep_heaviest{}});
  f(dispatch::padded{capacity::by_factor{4}});
  f(dispatch::padded{capacity::by_width{1.25}, capacity::keep_random{seed{2}}});
  f(dispatch::padded{capacity::fixed{2}});
  f(dispatch::padded{capacity::busiest{}});
  f(dispatch::padded{capacity::per_group<>{.tokens = 5, .inner = {0.6}}, capacity::keep_heaviest{}});
}

} // namespace

TEST_CASE("y is the weighted sum over the entries that were kept") {
  support::random_source random(72);
  const std::size_t tokens = 50;
  const auto x = support::random_matrix<double>(random, tokens, d);
  for_each_limited([&](auto dispatch) {
    const auto layer = make_layer<double>(dispatch);
    auto tape = layer.make_tape(tokens);
    matrix<double> y(tokens, d), inferred(tokens, d), expected(tokens, d);
    layer.forward(context{backends::reference{}}, x, y, tape);
    layer.forward(context{backends::reference{}}, x, inferred);
    const auto& assigned = std::as_const(tape).assignment();
    std::size_t dropped = 0;
    for (std::size_t t = 0; t < tokens; ++t)
      for (std::size_t a = assigned.offsets()[t]; a < assigned.offsets()[t + 1]; ++a) {
        if (tape.plan().slots()[a] == no_index) {
          ++dropped;
          continue;
        }
        const std::size_t e = assigned.experts()[a];
        matrix<double> out(1, d), saved(1, layer.experts().saved_per_row(e));
        layer.experts().forward(backends::reference{}, e, x.view().row_block(t, 1), out.view(), saved.view());
        for (std::size_t c = 0; c < d; ++c)
          expected(t, c) += assigned.weights()[a] * out(0, c);
      }
    CHECK(tape.plan().dropped() == dropped);
    CHECK(support::largest_difference(y.view(), expected.view()) == 0);
    CHECK(support::largest_difference(inferred.view(), expected.view()) == 0);
  });
}

TEST_CASE("renormalised after drops: the sum of a token's weights is what it was; shared experts keep theirs") {
  using router_type = routing::router<routing::linear<double>, routing::top_k<>, routing::raw, routing::always_on>;
  const auto make = [](auto dispatch) {
    moe_layer layer{expert_set{experts::glu_bank<double, experts::silu>(d, {1, 6, 3, 4, 2})},
                    router_type(d, 4, 3, {}, routing::always_on{1}), dispatch};
    support::random_source random(78);
    support::randomize(layer, random);
    return layer;
  };
  const capacity::by_factor limit{0.3};
  const auto layer = make(dispatch::sorted{limit, capacity::keep_heaviest{}, capacity::renormalize_kept{}});
  const auto plain = make(dispatch::sorted{limit, capacity::keep_heaviest{}});
  const std::size_t tokens = 50;
  support::random_source random(79);
  const auto x = support::random_matrix<double>(random, tokens, d);
  matrix<double> y(tokens, d), of_plain(tokens, d);
  auto tape = layer.make_tape(tokens), plain_tape = plain.make_tape(tokens);
  const context ctx{backends::reference{}};
  layer.forward(ctx, x, y, tape);
  plain.forward(ctx, x, of_plain, plain_tape);
  const auto& assigned = std::as_const(tape).assignment();
  CHECK(std::ranges::equal(assigned.weights(), std::as_const(plain_tape).assignment().weights())); // the router's
  std::size_t changed = 0, none_left = 0;
  for (std::size_t t = 0; t < tokens; ++t) {
    double all = 0, kept = 0;
    for (std::size_t a = assigned.offsets()[t]; a + 1 < assigned.offsets()[t + 1]; ++a) { // the last one is shared
      all += assigned.weights()[a];
      kept += tape.plan().slots()[a] == no_index ? 0 : assigned.weights()[a];
    }
    matrix<double> shared(1, d), saved(1, layer.experts().saved_per_row(4));
    layer.experts().forward(backends::reference{}, 4, x.view().row_block(t, 1), shared.view(), saved.view());
    for (std::size_t c = 0; c < d; ++c)
      if (all == kept || kept == 0)
        CHECK(y(t, c) == of_plain(t, c));
      else
        CHECK(y(t, c) == doctest::Approx((of_plain(t, c) - shared(0, c)) * all / kept + shared(0, c)).epsilon(1e-11));
    changed += all != kept && kept != 0 ? 1 : 0;
    none_left += kept == 0 ? 1 : 0;
  }
  CHECK(changed > 10);
  CHECK(none_left > 0);
}

TEST_CASE("renormalised after drops: gradients, of dropped entries too, and memory") {
  const context ctx{backends::reference{}};
  support::random_source random(80);
  const auto x = support::random_matrix<double>(random, 14, d), dy = support::random_matrix<double>(random, 14, d);
  const auto check = [&](auto layer) {
    matrix<double> y(14, d);
    auto tape = layer.make_tape(14);
    layer.forward(ctx, x, y, tape);
    CHECK(tape.plan().dropped() > 0);
    const auto [error, where] = support::layer_gradient_error(ctx, layer, x, dy);
    CAPTURE(where);
    CHECK(error <= 1e-6);
    workspace memory;
    const context measured{backends::reference{}, executors::serial{}, memory};
    auto gradients = layer.make_gradients();
    matrix<double> dx(14, d);
    layer.forward(measured, x, y);
    layer.forward(measured, x, y, tape);
    layer.backward(measured, tape, dy, dx, gradients);
    CHECK(memory.peak() <= layer.workspace_bytes(measured, 14));
  };
  const capacity::per_group<> limit{.tokens = 6, .inner = {0.7}};
  check(make_layer<double, routing::raw>(
      dispatch::sorted{limit, capacity::keep_heaviest{}, capacity::renormalize_kept{}}));
  check(make_layer<double, on_what_they_read>(
      dispatch::padded{limit, capacity::keep_first{}, capacity::renormalize_kept{}}));
}

TEST_CASE("gradients with drops agree with finite differences, weights on the output and on the input") {
  const context ctx{backends::reference{}};
  support::random_source random(73);
  const auto x = support::random_matrix<double>(random, 14, d), dy = support::random_matrix<double>(random, 14, d);
  std::size_t drops = 0;
  const auto check = [&](auto layer) {
    matrix<double> y(14, d);
    auto tape = layer.make_tape(14);
    layer.forward(ctx, x, y, tape);
    drops += tape.plan().dropped() > 0 ? 1 : 0;
    const auto [error, where] = support::layer_gradient_error(ctx, layer, x, dy);
    CAPTURE(where);
    CHECK(error <= 1e-6);
  };
  for_each_limited([&](auto dispatch) {
    check(make_layer<double>(dispatch));
    check(make_layer<double, on_what_they_read>(dispatch));
  });
  CHECK(drops >= 12); // all but those with room for everyone
}

TEST_CASE("a token that loses all its experts has output 0 and gradient 0") {
  // One row per expert and all tokens alike: the first token takes every place that the others want too.
  const auto layer = make_layer<float>(dispatch::sorted{capacity::fixed{1}});
  const std::size_t tokens = 4;
  support::random_source random(74);
  const auto first = support::random_matrix<float>(random, 1, d), dy = support::random_matrix<float>(random, tokens, d);
  matrix<float> x(tokens, d), y(tokens, d), dx(tokens, d);
  for (std::size_t t = 0; t < tokens; ++t)
    std::copy_n(first.data(), d, x.row(t).data());
  auto tape = layer.make_tape(tokens);
  auto gradients = layer.make_gradients();
  const context ctx{backends::reference{}};
  layer.forward(ctx, x, y, tape);
  layer.backward(ctx, tape, dy, dx, gradients);
  CHECK(tape.plan().dropped() == 6);
  CHECK(y(0, 0) != 0);
  for (std::size_t t = 1; t < tokens; ++t)
    for (std::size_t i = 0; i < d; ++i) {
      CHECK(y(t, i) == 0);
      CHECK(dx(t, i) == 0); // the router's part too: the weights of dropped entries have gradient 0
    }
}

TEST_CASE("shared experts have no capacity") {
  using routing_type =
      routing::router<routing::linear<float>, routing::top_k<>, routing::renormalized, routing::always_on>;
  const std::size_t tokens = 60;
  const auto check = [&](auto dispatch) {
    moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>(d, {2, 2, 2}),
                               experts::glu_bank<float, experts::silu>(d, {7})},
                    routing_type(d, 3, 1, {}, routing::always_on{1}), dispatch};
    layer.initialize(seed{4}, {.router_stddev = 1});
    support::random_source random(75);
    const auto x = support::random_matrix<float>(random, tokens, d);
    matrix<float> y(tokens, d);
    auto tape = layer.make_tape(tokens);
    layer.forward(context{backends::reference{}}, x, y, tape);
    CHECK(tape.plan().rows_of(3) == tokens);
    CHECK(tape.plan().dropped() > 0);
    for (std::size_t e = 0; e < 3; ++e)
      CHECK(tape.plan().rows_of(e) <= 10); // 0.5 · 60 / 3: shared entries do not count
    return tape.plan().padding();
  };
  CHECK(check(dispatch::sorted{capacity::by_factor{0.5}}) == 0);
  check(dispatch::padded{capacity::by_factor{0.5}});
}

TEST_CASE("routing inputs choose the lots of a step") {
  const auto layer = make_layer<float>(dispatch::sorted{capacity::by_factor{0.5}, capacity::keep_random{seed{9}}});
  const std::size_t tokens = 80;
  support::random_source random(76);
  const auto x = support::random_matrix<float>(random, tokens, d);
  const auto dropped_in = [&](std::uint64_t step) {
    matrix<float> y(tokens, d);
    auto tape = layer.make_tape(tokens);
    routing_inputs<float> inputs;
    inputs.noise = noise_source{seed{1}, step};
    layer.forward(context{backends::reference{}}, x, y, tape, inputs);
    const auto slots = tape.plan().slots();
    std::vector<bool> dropped;
    for (const index_t slot : slots)
      dropped.push_back(slot == no_index);
    return dropped;
  };
  CHECK(dropped_in(1) == dropped_in(1));
  CHECK(dropped_in(1) != dropped_in(2));
}

TEST_CASE("workspace_bytes is enough for every capacity, and a tape from make_tape never grows") {
  const auto check = [](auto layer) {
    using T = typename decltype(layer)::value_type;
    support::random_source random(77);
    for (const std::size_t tokens : {0U, 1U, 7U, 200U}) {
      support::counting_resource heap;
      auto* previous = std::pmr::set_default_resource(&heap);
      auto tape = layer.make_tape(tokens);
      std::pmr::set_default_resource(previous);
      const int reserved = heap.allocations;
      auto gradients = layer.make_gradients();
      for (const std::size_t batch : {tokens, tokens / 2, tokens}) {
        workspace memory;
        const context ctx{backends::reference{}, executors::serial{}, memory};
        const auto x = support::random_matrix<T>(random, batch, d), dy = support::random_matrix<T>(random, batch, d);
        matrix<T> y(batch, d), dx(batch, d);
        layer.forward(ctx, x, y);
        CHECK(memory.peak() <= layer.workspace_bytes(ctx, batch));
        layer.forward(ctx, x, y, tape);
        CHECK(memory.peak() <= layer.workspace_bytes(ctx, batch));
        layer.backward(ctx, tape, dy, dx, gradients);
        CHECK(memory.peak() <= layer.workspace_bytes(ctx, batch));
        CHECK(tape.plan().size() <= layer.size() * batch);
      }
      CHECK(heap.allocations == reserved);
    }
  };
  for_each_limited([&](auto dispatch) {
    check(make_layer<float>(dispatch));
    check(make_layer<double>(dispatch));
    moe_layer top_p{some_experts<float>(), routing::top_p_router<float>(d, 6, 0.9), dispatch};
    top_p.initialize(seed{5}, {.router_stddev = 0.1});
    check(std::move(top_p));
  });
  check(make_layer<float>(dispatch::sorted{}));
}

TEST_CASE("workspace_bytes counts what planning and wide experts take, where rows are small") {
  const std::size_t tokens = 2000;
  const auto check = [&](auto layer) {
    layer.initialize(seed{6}, {.router_stddev = 1});
    support::random_source random(78);
    workspace memory;
    const context ctx{backends::reference{}, executors::serial{}, memory};
    const auto x = support::random_matrix<float>(random, tokens, 1),
               dy = support::random_matrix<float>(random, tokens, 1);
    matrix<float> y(tokens, 1), dx(tokens, 1);
    auto tape = layer.make_tape(tokens);
    auto gradients = layer.make_gradients();
    layer.forward(ctx, x, y);
    layer.forward(ctx, x, y, tape);
    layer.backward(ctx, tape, dy, dx, gradients);
    CHECK(tape.plan().size() > 0);
    CHECK(memory.peak() <= layer.workspace_bytes(ctx, tokens));
  };
  const routing::top_k_router<float> router(1, 4, 2);
  check(moe_layer{expert_set{experts::identity_bank<float>(1, 4)}, router,
                  dispatch::sorted{capacity::by_factor{10}, capacity::keep_heaviest{}}});
  check(moe_layer{expert_set{experts::identity_bank<float>(1, 4)}, router, dispatch::padded{capacity::by_factor{10}}});
  check(moe_layer{expert_set{experts::glu_bank<float, experts::silu>(1, {64, 1, 32, 7})}, router,
                  dispatch::padded{capacity::by_factor{10}}});
  check(moe_layer{expert_set{experts::glu_bank<float, experts::silu>(1, {64, 1, 32, 7})}, router, dispatch::sorted{}});
}
