// SPDX-License-Identifier: MIT
// A batch with padding against the same batch without it: every score, selection, batch selection, weighting and policy
// of shared experts. Padding holds NaN in x, in dy and in the gradients that losses leave.
#include <hmoe/backends/reference.hpp>
#include <hmoe/dispatch/capacity.hpp>
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/padded.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/batch_selections/balanced.hpp>
#include <hmoe/routing/batch_selections/expert_choice.hpp>
#include <hmoe/routing/batch_selections/hash_table.hpp>
#include <hmoe/routing/batch_selections/random_hash.hpp>
#include <hmoe/routing/batch_selections/sinkhorn.hpp>
#include <hmoe/routing/presets.hpp>
#include <hmoe/routing/replay.hpp>
#include <hmoe/routing/scores/cosine.hpp>
#include <hmoe/routing/scores/gate_residual.hpp>
#include <hmoe/routing/scores/grouped.hpp>
#include <hmoe/routing/scores/gumbel.hpp>
#include <hmoe/routing/scores/noisy.hpp>
#include <hmoe/routing/selections/two_level.hpp>
#include <hmoe/routing/weightings/equal_weights.hpp>
#include <hmoe/statistics/drops.hpp>
#include <hmoe/statistics/expert_load.hpp>
#include <hmoe/statistics/router_entropy.hpp>
#include <hmoe/statistics/token_distribution.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::index_t;
using hmoe::matrix;
using routing::linear;
using routing::router;

namespace {
constexpr std::size_t d = 5, experts = 6;
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
using mask = std::vector<std::uint8_t>;
const mask scattered_padding{0, 1, 1, 0, 0, 1, 1, 1, 0}, padding_behind{1, 1, 1, 1, 1, 0, 0, 0, 0};

/// What one pass and its backward give.
struct outcome {
  matrix<double> y, dx;
  std::vector<double> gradients;
  hmoe::router_trace<double> previous;
  hmoe::tape<double> tape;
};

/// What the tokens come with; the mask is of the batch that has padding.
struct company {
  mask valid = scattered_padding;
  bool noise = false, ids = false, previous = false;
};

template <class Layer, class Context>
outcome run(const Context& ctx, Layer& layer, const company& with, bool padded, std::uint64_t seed) {
  std::vector<std::size_t> kept; // the tokens of the batch
  for (std::size_t t = 0; t < with.valid.size(); ++t)
    if (padded || with.valid[t] != 0)
      kept.push_back(t);
  const std::size_t tokens = kept.size(), routed = layer.router().routed();
  support::random_source random(seed);
  const auto fill = [&](matrix<double>& to, std::size_t columns) { // all nine rows are drawn, always
    const auto all = support::random_matrix<double>(random, with.valid.size(), columns);
    to.resize_for_overwrite(tokens, columns);
    for (std::size_t i = 0; i < tokens; ++i)
      for (std::size_t c = 0; c < columns; ++c)
        to(i, c) = with.valid[kept[i]] != 0 ? all(kept[i], c) : not_a_number;
  };
  matrix<double> x, dy, a, b, before;
  fill(x, d);
  fill(dy, d);
  fill(a, routed);
  fill(b, routed);
  fill(before, routed);
  std::vector<index_t> ids;
  for (const std::size_t t : kept)
    ids.push_back(with.valid[t] != 0 ? static_cast<index_t>(t % 3) : 1'000'000);

  outcome result{matrix<double>(tokens, d), matrix<double>(tokens, d), {}, {}, layer.make_tape(tokens)};
  result.previous.resize(tokens, routed, 0, true);
  std::copy_n(before.data(), before.size(), result.previous.logits().data());
  hmoe::routing_inputs<double> inputs;
  if (with.noise)
    inputs.noise = hmoe::noise_source{hmoe::seed{3}, 4};
  if (with.ids)
    inputs.token_ids = ids;
  if (with.previous)
    inputs.previous = &result.previous;
  if (padded)
    inputs.valid = with.valid;
  matrix<double> inferred(tokens, d);
  layer.forward(ctx, x, inferred, inputs);
  layer.forward(ctx, x, result.y, result.tape, inputs);
  for (std::size_t i = 0; i < result.y.size(); ++i)
    REQUIRE(inferred.data()[i] == result.y.data()[i]);
  auto& trace = result.tape.trace();
  std::copy_n(a.data(), a.size(), trace.d_logits().data());
  std::copy_n(b.data(), b.size(), trace.d_probabilities().data());
  for (std::size_t i = 0; i < tokens; ++i)
    for (double& sink : trace.d_score_saved().row(i))
      sink = with.valid[kept[i]] != 0 ? 0.25 : not_a_number;
  auto gradients = layer.make_gradients();
  layer.backward(ctx, result.tape, dy, result.dx, gradients);
  gradients.visit_parameters([&](const hmoe::parameter_info&, auto view) {
    for (std::size_t r = 0; r < view.rows(); ++r)
      result.gradients.insert(result.gradients.end(), view.row(r).begin(), view.row(r).end());
  });
  return result;
}

template <class Router, class Dispatch = hmoe::dispatch::sorted<>>
void check(Router router, const company& with = {}, Dispatch dispatch = {}) {
  std::vector<std::size_t> widths;
  for (std::size_t e = 0; e < router.size(); ++e)
    widths.push_back(1 + e % 3);
  using bank = hmoe::experts::glu_bank<double, hmoe::experts::silu>;
  hmoe::moe_layer layer{hmoe::expert_set{bank(d, widths)}, std::move(router), dispatch};
  support::random_source random(7);
  layer.visit_parameters([&](const hmoe::parameter_info&, auto view) { support::fill(random, view); });
  const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::openmp{2}};
  const outcome padded = run(ctx, layer, with, true, 11), plain = run(ctx, layer, with, false, 11);
  const auto& masked = padded.tape;
  std::size_t i = 0;
  for (std::size_t t = 0; t < with.valid.size(); ++t)
    if (with.valid[t] == 0) {
      for (std::size_t c = 0; c < d; ++c) {
        CHECK(padded.y(t, c) == 0);
        CHECK(padded.dx(t, c) == 0);
      }
      CHECK(masked.assignment().experts_of(t).empty());
      for (const double p : masked.trace().probabilities().row(t))
        CHECK(p == 0);
    } else {
      for (std::size_t c = 0; c < d; ++c) {
        CHECK(padded.y(t, c) == plain.y(i, c));
        CHECK(padded.dx(t, c) == plain.dx(i, c));
      }
      const auto got = masked.assignment().experts_of(t), expected = plain.tape.assignment().experts_of(i++);
      CHECK(std::equal(got.begin(), got.end(), expected.begin(), expected.end()));
    }
  CHECK(masked.assignment().valid_tokens() == i);
  CHECK(masked.trace().valid_tokens() == i);
  CHECK(std::ranges::equal(masked.trace().tokens_per_expert(), plain.tape.trace().tokens_per_expert()));
  REQUIRE(padded.gradients.size() == plain.gradients.size());
  double largest = 0;
  for (std::size_t p = 0; p < plain.gradients.size(); ++p) {
    CHECK(padded.gradients[p] == doctest::Approx(plain.gradients[p]).epsilon(1e-12));
    largest = std::max(largest, std::abs(plain.gradients[p]));
  }
  CHECK(largest > 0);
  if (with.previous)
    for (std::size_t t = 0, j = 0; t < with.valid.size(); ++t) {
      for (std::size_t e = 0; e < experts; ++e)
        CHECK(padded.previous.d_logits()(t, e) == (with.valid[t] != 0 ? plain.previous.d_logits()(j, e) : 0));
      j += with.valid[t];
    }
}
template <class Selection, class Weighting = routing::renormalized>
void check_selection(Selection select, const company& with = {}, Weighting weight = {}) {
  check(router(linear<double>(d, experts), std::move(select), weight), with);
}
} // namespace

TEST_CASE("padding has no share: scores") {
  check(router<linear<double, routing::softmax, true>, routing::top_k<>>(d, experts, 2));
  check(router<linear<double, routing::sigmoid>, routing::top_k<>>(d, experts, 2));
  check(router<routing::cosine<double>, routing::top_k<>>(d, experts, 2));
  check(router<routing::grouped<linear<double>>, routing::two_level>(
      routing::grouped<linear<double>>(linear<double>(d, experts), {1, 3, 2}),
      routing::two_level(std::vector<std::size_t>{1, 3, 2}, 2, 1)));
  check(router<routing::gate_residual<linear<double>>, routing::top_k<>>(d, experts, 2), {.previous = true});
  // Noise is a function of the position, so here padding stands behind.
  using wrapped = routing::gumbel<routing::noisy<routing::jittered<routing::cosine<double>>>>;
  check(router<wrapped, routing::top_k<>>(d, experts, 2), {.valid = padding_behind, .noise = true});
  check(router<wrapped, routing::top_k<>>(d, experts, 2));
}

TEST_CASE("padding has no share: selections, also over a batch") {
  check_selection(routing::top_p{0.6});
  check_selection(routing::threshold{0.2});
  check_selection(routing::expert_choice{2}, {}, routing::raw{});
  check_selection(routing::sinkhorn{2});
  check_selection(routing::balanced{}, {}, routing::sigmoid_of_logit{});
  check_selection(routing::random_hash{2, hmoe::seed{1}}, {.ids = true});
  check_selection(routing::hash_table({0, 2, 1, 0, 4, 3}, 2), {.ids = true}, routing::equal_weights{});
}

TEST_CASE("padding has no share: weightings, shared experts, presets") {
  check_selection(routing::top_k<>{2}, {}, routing::softmax_over_selected{});
  check_selection(routing::top_k<>{2}, {}, routing::on_input_side<routing::raw>{});
  check(router(linear<double>(d, experts), routing::top_k<>{2}, routing::raw{}, routing::always_on{2}));
  check(router(linear<double>(d, experts), routing::top_k<>{2}, routing::raw{}, routing::sigmoid_gated<double>(d, 2)));
  check(
      routing::presets::deepseek_v3<double>{d, experts, {experts, {.groups = 3, .kept = 2, .k = 3}}, {.factor = 2.5}});
}

TEST_CASE("padding has no share: dispatch, capacity") {
  const auto plain = [] { return router<linear<double>, routing::top_k<>>(d, experts, 2); };
  check(plain(), {}, hmoe::dispatch::scattered{});
  check(plain(), {}, hmoe::dispatch::looped{});
  check(plain(), {}, hmoe::dispatch::dense{});
  check(plain(), {}, hmoe::dispatch::sorted{hmoe::capacity::by_factor{0.8}});
  check(plain(), {}, hmoe::dispatch::padded{hmoe::capacity::fixed{7}}); // 7 rows, but there are 5 tokens
  check(plain(), {}, hmoe::dispatch::padded{hmoe::capacity::by_factor{1.25}, hmoe::capacity::keep_heaviest{}});
}

TEST_CASE("a mask of ones changes nothing, one of zeros leaves nothing") {
  const auto plain = [] { return router<linear<double>, routing::top_k<>>(d, experts, 2); };
  check(plain(), {.valid = mask(9, 1)});
  using bank = hmoe::experts::glu_bank<double, hmoe::experts::silu>;
  const auto none = [&](auto select) {
    hmoe::moe_layer layer{hmoe::expert_set{bank(d, std::vector<std::size_t>(experts, 2))},
                          router(linear<double>(d, experts), select, routing::raw{})};
    layer.initialize(hmoe::seed{1});
    const outcome padded =
        run(hmoe::context{hmoe::backends::reference{}}, layer, {.valid = mask(4, 0), .ids = true}, true, 1);
    for (std::size_t i = 0; i < padded.y.size(); ++i) {
      CHECK(padded.y.data()[i] == 0);
      CHECK(padded.dx.data()[i] == 0);
    }
    for (const double gradient : padded.gradients)
      CHECK(gradient == 0);
    CHECK(padded.tape.assignment().size() == 0);
  };
  none(routing::top_k<>{2});
  none(routing::expert_choice{1});
  none(routing::sinkhorn{1});
  none(routing::balanced{});
  none(routing::random_hash{1});
}

TEST_CASE("a replay leaves padding out") {
  hmoe::assignment<double> recorded;
  recorded.resize_tokens(3);
  const std::vector<index_t> counts{2, 1, 2}, ids{0, 4, 3, 1, 2};
  std::copy(counts.begin(), counts.end(), recorded.offsets().begin() + 1);
  recorded.sum_counts();
  recorded.resize_entries();
  std::copy(ids.begin(), ids.end(), recorded.experts().begin());
  std::fill(recorded.weights().begin(), recorded.weights().end(), 0.5);
  const routing::replay<double> replayed(d, experts, recorded);
  hmoe::router_trace<double> trace;
  hmoe::assignment<double> assigned;
  trace.resize(3, experts, 0, false);
  const mask valid{1, 0, 1};
  trace.set_inputs({.valid = valid});
  const matrix<double> x(3, d);
  replayed.forward(hmoe::context{hmoe::backends::reference{}}, x.view(), trace, assigned);
  CHECK(std::vector<index_t>(assigned.experts().begin(), assigned.experts().end()) == std::vector<index_t>{0, 4, 1, 2});
  CHECK(std::vector<index_t>(assigned.offsets().begin(), assigned.offsets().end()) == std::vector<index_t>{0, 2, 2, 4});
  CHECK(trace.tokens_per_expert()[3] == 0);
}

TEST_CASE("statistics do not count padding") {
  using bank = hmoe::experts::glu_bank<double, hmoe::experts::silu>;
  hmoe::moe_layer layer{hmoe::expert_set{bank(d, std::vector<std::size_t>(experts, 2))},
                        router<linear<double>, routing::threshold, routing::raw>(d, experts, 0.17)};
  layer.initialize(hmoe::seed{5}, {.router_stddev = 1});
  const hmoe::context ctx{hmoe::backends::reference{}};
  const company with;
  const outcome padded = run(ctx, layer, with, true, 2), plain = run(ctx, layer, with, false, 2);
  namespace s = hmoe::statistics;
  CHECK(s::router_entropy(padded.tape.trace()) == doctest::Approx(s::router_entropy(plain.tape.trace())));
  CHECK(s::mean_probabilities(padded.tape.trace())[2] == doctest::Approx(s::mean_probabilities(plain.tape.trace())[2]));
  CHECK(s::unrouted_rate(padded.tape.assignment()) == s::unrouted_rate(plain.tape.assignment()));
  CHECK(s::unserved_rate(padded.tape.assignment(), padded.tape.plan()) ==
        s::unserved_rate(plain.tape.assignment(), plain.tape.plan()));
  s::expert_load of_assignment(experts), of_trace(experts), expected(experts);
  of_assignment.add(padded.tape.assignment());
  of_trace.add(padded.tape.trace());
  expected.add(plain.tape.assignment());
  CHECK(of_assignment.tokens == 5);
  CHECK(of_trace.tokens == 5);
  CHECK(of_assignment.experts_per_token() == expected.experts_per_token());
  CHECK(layer.cost().activated(padded.tape.assignment()).parameters ==
        layer.cost().activated(plain.tape.assignment()).parameters);
  matrix<std::uint64_t> counts(experts, 3);
  std::vector<index_t> ids(9, 99);
  for (std::size_t t = 0; t < 9; ++t)
    if (with.valid[t] != 0)
      ids[t] = static_cast<index_t>(t % 3);
  s::add_token_distribution(padded.tape.assignment(), ids, counts.view());
}

TEST_CASE("a mask of another length is refused before anything is written, and padding's memory is as said") {
  using bank = hmoe::experts::glu_bank<double, hmoe::experts::silu>;
  hmoe::moe_layer layer{hmoe::expert_set{bank(d, std::vector<std::size_t>(experts, 2))},
                        router<linear<double>, routing::top_k<>>(d, experts, 2)};
  layer.initialize(hmoe::seed{1});
  hmoe::workspace memory;
  const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::serial{}, memory};
  support::random_source random(1);
  const auto x = support::random_matrix<double>(random, 64, d);
  matrix<double> y(64, d);
  y(0, 0) = 7;
  const mask short_one(63, 1);
  CHECK(support::error_of([&] { layer.forward(ctx, x, y, {.valid = short_one}); }) ==
        "hmoe: routing_inputs::valid says of 63 tokens whether they are valid, the batch has 64");
  CHECK(y(0, 0) == 7);
  mask valid(64, 1);
  valid[3] = 0;
  layer.forward(ctx, x, y, {.valid = valid});
  CHECK(memory.peak() <= layer.workspace_bytes(ctx, 64, true));
}
