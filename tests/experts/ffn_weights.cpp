// SPDX-License-Identifier: MIT
// Banks that own their weights, and banks that work on the caller's.
#include <hmoe/backends/reference.hpp>
#include <hmoe/backends/simd.hpp>
#include <hmoe/experts/constant.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/gpt_oss_glu.hpp>
#include <hmoe/experts/low_rank.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/layer/any_layer.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

#include "support/counting_resource.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <utility>
#include <vector>

using namespace hmoe;
using experts::biases;
using glu = experts::glu_bank<float, experts::silu>;

namespace {
constexpr std::size_t d = 7;
const std::vector<std::size_t> sizes{5, 0, 3};

glu random_bank(biases bias) {
  glu bank(d, sizes, bias);
  support::random_source random(41);
  bank.visit_parameters([&](const parameter_info&, auto view) { support::fill(random, view); });
  return bank;
}

/// The weights of a bank as another program may hold them: fused [gate; up], or each tensor by itself with rows that
/// lie further apart.
struct callers_weights {
  std::vector<matrix<float>> storage;
  std::vector<experts::ffn_tensors<float, 2>> tensors;

  callers_weights(const glu& bank, bool fused) {
    storage.reserve(6 * bank.size());
    const auto keep = [&](matrix_view<const float> from, std::size_t extra) {
      matrix<float>& m = storage.emplace_back(from.rows(), from.cols() + extra);
      const auto view = m.view().column_block(0, from.cols());
      for (std::size_t r = 0; r < from.rows(); ++r)
        std::copy(from.row(r).begin(), from.row(r).end(), view.row(r).begin());
      return view;
    };
    for (std::size_t e = 0; e < bank.size(); ++e) {
      const auto& weights = bank.weights();
      auto& t = tensors.emplace_back();
      if (fused) {
        const matrix_view<float> both = keep(weights.input(e), 0);
        t.lanes = {both.row_block(0, bank.width(e)), both.row_block(bank.width(e), bank.width(e))};
      } else {
        t.lanes = {keep(weights.lane(e, 0), 2), keep(weights.lane(e, 1), 1)};
      }
      t.output = keep(weights.output(e), fused ? 0 : 3);
      if (weights.has_biases()) {
        t.lane_biases = {keep(weights.lane_bias(e, 0), 0), keep(weights.lane_bias(e, 1), 0)};
        t.output_bias = keep(weights.output_bias(e), 0);
      }
    }
  }
  callers_weights(const callers_weights&) = delete;
};

/// y, dx and all gradients of a training step.
template <class Context, class Experts> std::vector<float> step(const Context& ctx, Experts experts) {
  routing::top_k_router<float> router{d, experts.size(), 2};
  router.initialize(seed{2}, 0, {.router_stddev = 1});
  const moe_layer layer{std::move(experts), std::move(router)};
  support::random_source random(42);
  const auto x = support::random_matrix<float>(random, 20, d), dy = support::random_matrix<float>(random, 20, d);
  matrix<float> y(20, d), dx(20, d);
  auto tape = layer.make_tape(20);
  auto gradients = layer.make_gradients();
  layer.forward(ctx, x, y, tape);
  layer.backward(ctx, tape, dy, dx, gradients);
  std::vector<float> all(y.data(), y.data() + y.size());
  all.insert(all.end(), dx.data(), dx.data() + dx.size());
  gradients.visit_parameters([&](const parameter_info&, matrix_view<float> view) {
    for (std::size_t r = 0; r < view.rows(); ++r)
      all.insert(all.end(), view.row(r).begin(), view.row(r).end());
  });
  return all;
}
} // namespace

TEST_CASE("a bank on the caller's memory computes what a bank of its own weights computes, and holds nothing") {
  for (const biases bias : {biases::none, biases::all}) {
    const glu own = random_bank(bias);
    const auto expected = step(context{backends::reference{}}, expert_set{own});
    for (const bool fused : {true, false}) {
      CAPTURE(fused);
      callers_weights theirs(own, fused);
      glu bank{experts::ffn_weights<float, 2>{theirs.tensors}};
      CHECK(!bank.weights().owned());
      CHECK(bank.weights().stacked() == fused);
      CHECK(std::as_const(bank).gate(0).data() == theirs.tensors[0].lanes[0].data());
      const auto ours = step(context{backends::reference{}}, expert_set{std::move(bank)});
      REQUIRE(ours.size() == expected.size());
      if (fused)
        CHECK(std::memcmp(ours.data(), expected.data(), ours.size() * sizeof(float)) == 0);
      else
        for (std::size_t i = 0; i < ours.size(); ++i)
          CHECK(ours[i] == doctest::Approx(expected[i]).epsilon(1e-4));
    }
  }
}

TEST_CASE("whole banks on the caller's memory: packed, and at once wherever their lanes lie") {
  glu wide(300, {200, 150, 90}, biases::all);
  support::random_source random(43);
  wide.visit_parameters([&](const parameter_info&, auto view) { support::fill(random, view, 0.1F); });
  const context simd{backends::simd<>{}};
  const auto x = support::random_matrix<float>(random, 9, 300);
  const auto forward = [&](const auto& set) {
    matrix<float> y(9, 300);
    const expert_rows<float> work{.expert = 1, .count = 9, .x = x.view(), .y = y.view()};
    set.forward_rows(simd, vector_view<const expert_rows<float>>(&work, 1));
    return y;
  };
  const auto expected = forward(expert_set{wide}), packed = forward(backends::simd<>::pack(expert_set{wide}));
  for (const bool fused : {true, false}) {
    callers_weights theirs(wide, fused);
    expert_set set{glu{experts::ffn_weights<float, 2>{theirs.tensors}}};
    CHECK(set.runner_of(simd, 0) == experts::runner::backend);
    const auto ours = forward(set), ours_packed = forward(backends::simd<>::pack(set));
    CHECK(std::memcmp(ours.data(), expected.data(), ours.size() * sizeof(float)) == 0);
    CHECK(std::memcmp(ours_packed.data(), packed.data(), packed.size() * sizeof(float)) == 0);
  }
}

TEST_CASE("changes go to the caller's memory; a copy has weights of its own") {
  const glu own = random_bank(biases::all);
  callers_weights theirs(own, false);
  glu bank{experts::ffn_weights<float, 2>{theirs.tensors}};
  glu copy = bank;
  CHECK(copy.weights().owned());
  bank.gate(0)(1, 2) = 77;
  CHECK(theirs.tensors[0].lanes[0](1, 2) == 77);
  CHECK(std::as_const(copy).gate(0)(1, 2) == own.gate(0)(1, 2));
  copy = bank;
  CHECK(std::as_const(copy).gate(0)(1, 2) == 77);
  const glu moved = std::move(bank);
  CHECK(moved.gate(0).data() == theirs.tensors[0].lanes[0].data());

  // The same numbers are drawn wherever they go.
  glu drawn(d, sizes, biases::all), in_place{experts::ffn_weights<float, 2>{theirs.tensors}};
  drawn.initialize(seed{5}, 3, {});
  in_place.initialize(seed{5}, 3, {});
  for (std::size_t e = 0; e < sizes.size(); ++e)
    for (std::size_t r = 0; r < sizes[e]; ++r)
      for (std::size_t c = 0; c < d; ++c) {
        CHECK(theirs.tensors[e].lanes[1](r, c) == std::as_const(drawn).up(e)(r, c));
        CHECK(theirs.tensors[e].output(c, r) == std::as_const(drawn).down(e)(c, r));
      }
}

TEST_CASE("memory that may only be read is read, and nothing else") {
  const glu own = random_bank(biases::none);
  const callers_weights theirs(own, true);
  std::vector<experts::ffn_tensors<const float, 2>> read_only;
  for (const auto& t : theirs.tensors)
    read_only.push_back({{t.lanes[0], t.lanes[1]}, t.output, {}, {}});
  glu bank{experts::ffn_weights<float, 2>{read_only}};
  CHECK(std::as_const(bank).up(2)(1, 1) == own.up(2)(1, 1));
  CHECK_THROWS_WITH_AS(static_cast<void>(bank.up(2)), doctest::Contains("memory that it may only read"), hmoe::error);
  CHECK_THROWS_AS(bank.initialize(seed{1}, 0, {}), hmoe::error);
  CHECK_THROWS_AS(bank.visit_parameters([](const parameter_info&, matrix_view<float>) {}), hmoe::error);
  glu copy = bank;
  CHECK_NOTHROW(copy.initialize(seed{1}, 0, {}));

  // A const bank shows them, in a set and in a layer, too.
  const auto first_values = [](const auto& shown) {
    std::vector<const float*> addresses;
    shown.visit_parameters(
        [&](const parameter_info&, matrix_view<const float> view) { addresses.push_back(view.data()); });
    return addresses;
  };
  std::vector<const float*> expected;
  for (const auto& t : theirs.tensors)
    for (const matrix_view<const float> view : {t.lanes[0], t.lanes[1], t.output})
      expected.push_back(view.data());
  CHECK(first_values(bank) == expected);
  const moe_layer layer{expert_set{std::move(bank)}, routing::top_k_router<float>{d, sizes.size(), 1}};
  CHECK(first_values(layer.experts()) == expected);
  CHECK(first_values(layer).size() == expected.size() + 1);
  CHECK_NOTHROW(static_cast<void>(backends::simd<>::pack(layer)));
  const any_layer<context<backends::reference>> any{
      layer.with_experts(expert_set{glu{experts::ffn_weights<float, 2>{read_only}}})};
  CHECK(first_values(any).size() == expected.size() + 1);
}

TEST_CASE("tensors that do not fit one another are refused with the numbers") {
  const glu own = random_bank(biases::all);
  const auto refused = [&](auto change) {
    callers_weights theirs(own, false);
    change(theirs.tensors);
    return experts::ffn_weights<float, 2>{theirs.tensors};
  };
  CHECK_THROWS_WITH_AS(refused([](auto& t) { t[2].lanes[1] = t[2].lanes[1].row_block(0, 2); }),
                       "hmoe: expert 2: its input is 2 x 7, needed is 3 x 7", hmoe::error);
  CHECK_THROWS_WITH_AS(refused([](auto& t) {
                         t[0].output_bias = {};
                         t[0].lane_biases = {};
                       }),
                       "hmoe: expert 1: its output bias is 1 x 7, needed is 0 x 0", hmoe::error);
  CHECK_THROWS_WITH_AS(refused([](auto& t) { t.clear(); }), "hmoe: an expert bank needs at least one expert",
                       hmoe::error);
}

TEST_CASE("a bank of its own weights takes them from the given resource and gives them back") {
  support::counting_resource memory;
  const auto holds = [&](const auto& make) {
    {
      const auto bank = make();
      std::size_t values = 0;
      for (std::size_t e = 0; e < bank.size(); ++e)
        values += bank.parameter_count(e);
      CHECK(memory.live_bytes >= values * sizeof(float));
    }
    CHECK(memory.live_bytes == 0);
  };
  holds([&] { return glu(d, sizes, biases::all, {}, &memory); });
  holds([&] { return experts::mlp_bank<float, experts::relu>(d, sizes, biases::all, &memory); });
  holds([&] { return experts::gpt_oss_glu_bank<float>(d, sizes, {}, biases::all, &memory); });
  holds([&] { return experts::low_rank_bank<float>(d, sizes, &memory); });
  holds([&] { return experts::constant_bank<float>(d, 3, &memory); });
}
