// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>
#include <hmoe/compress/nested_levels.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/execution/openmp.hpp>

#include "compress/calibrated_layer.hpp"
#include "support/allocations.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace compress = hmoe::compress;
using hmoe::matrix;
using support::cpu;
using support::d;
using list = std::vector<std::size_t>;

namespace {
const std::vector<list> three_levels{{5, 4, 3, 6, 6}, {2, 1, 0, 6, 3}, {0, 2, 1, 3, 0}};

/// Levels 0 to 2 without an order.
std::vector<std::uint8_t> mixed_classes(std::size_t tokens) {
  std::vector<std::uint8_t> classes;
  for (std::size_t t = 0; t < tokens; ++t)
    classes.push_back(static_cast<std::uint8_t>((t * t + t / 3) % 3));
  return classes;
}
template <class T> bool same_row(const matrix<T>& a, const matrix<T>& b, std::size_t row) {
  return std::ranges::equal(a.view().row(row), b.view().row(row));
}
} // namespace

TEST_CASE("classes of tokens at widths of their own: forward and in training the layers that are cut to them") {
  const auto layer = support::make_calibrated_layer();
  support::random_source random(50);
  const std::size_t tokens = 33;
  const auto x = support::random_matrix<double>(random, tokens, d),
             dy = support::random_matrix<double>(random, tokens, d);
  const auto classes = mixed_classes(tokens);
  const compress::level_by_token by_class{{classes.data(), classes.size()}};
  const compress::nested_levels part{layer, three_levels};
  CHECK(part.experts().bank<1>().up(0).data() == layer.experts().bank<1>().up(0).data()); // no copy
  hmoe::workspace memory;
  const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::serial{}, memory};
  memory.reserve(part.workspace_bytes(ctx, tokens));
  matrix<double> y(tokens, d), recorded(tokens, d), dx(tokens, d);
  auto tape = part.make_tape(tokens);
  auto gradients = layer.make_gradients();
  auto into = part.part_of(gradients);
  CHECK(support::allocations_in([&] {
          part.forward(ctx, x, y, by_class);
          part.forward(ctx, x, recorded, tape, by_class);
          part.backward(ctx, tape, dy, dx, into);
        }) == 0);
  CHECK(support::same_bits(y, recorded));
  auto whole_tape = layer.make_tape(tokens);
  layer.forward(cpu, x, recorded, whole_tape);
  CHECK(
      std::ranges::equal(std::as_const(tape).assignment().experts(), std::as_const(whole_tape).assignment().experts()));

  auto expected = layer.make_gradients();
  for (std::size_t l = 0; l < 3; ++l) {
    // The other tokens have no gradient.
    matrix<double> own_dy(tokens, d);
    for (std::size_t t = 0; t < tokens; ++t)
      if (classes[t] == l)
        std::ranges::copy(dy.view().row(t), own_dy.view().row(t).begin());
    const compress::nested level{layer, three_levels[l]};
    support::step cut(level.cut(), x, own_dy);
    for (std::size_t t = 0; t < tokens; ++t)
      if (classes[t] == l) {
        CHECK(same_row(y, cut.y, t));
        for (std::size_t i = 0; i < d; ++i)
          CHECK(dx(t, i) == doctest::Approx(cut.dx(t, i)).epsilon(1e-12));
      }
    auto level_part = level.part_of(expected);
    auto level_tape = layer.make_tape(tokens);
    level.forward(cpu, x, recorded, level_tape);
    level.backward(cpu, level_tape, own_dy, recorded, level_part);
  }
  std::vector<double> all, all_expected;
  const auto collect = [](std::vector<double>& to) {
    return
        [&to](const hmoe::parameter_info&, auto view) { to.insert(to.end(), view.data(), view.data() + view.size()); };
  };
  gradients.visit_parameters(collect(all));
  expected.visit_parameters(collect(all_expected));
  double largest = 0, size = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    largest = std::max(largest, std::abs(all[i] - all_expected[i]));
    size = std::max(size, std::abs(all[i]));
  }
  CHECK(largest < 1e-13 * size);
  // Threads change no bit, although levels of an expert share its gradients.
  const hmoe::context threads{hmoe::backends::reference{}, hmoe::executors::openmp(4)};
  for (int repeat = 0; repeat < 5; ++repeat) {
    auto again = layer.make_gradients();
    auto again_part = part.part_of(again);
    for (int pass = 0; pass < 2; ++pass) { // nothing of the first one stays
      again.set_zero();
      part.forward(threads, x, recorded, tape, by_class);
      part.backward(threads, tape, dy, dx, again_part);
    }
    std::vector<double> all_again;
    again.visit_parameters(collect(all_again));
    CHECK(support::same_bits(recorded, y));
    CHECK(support::same_bits(all_again, all));
  }
}

TEST_CASE("experts at widths by their load: the formula, and the bits of the outputs at these widths") {
  const auto layer = support::make_calibrated_layer(6);
  support::random_source random(51);
  const std::size_t tokens = 40;
  const auto x = support::random_matrix<double>(random, tokens, d);
  const compress::nested_levels part{layer, three_levels};
  const std::vector<double> limits{0.8, 1.1};
  const compress::level_by_load by_load{{limits.data(), limits.size()}};
  matrix<double> y(tokens, d), other(tokens, d);
  auto tape = part.make_tape(tokens);
  part.forward(cpu, x, y, tape, by_load);
  const auto& assigned = std::as_const(tape).assignment();
  list rows(5), level(5);
  for (const auto e : assigned.experts())
    ++rows[e];
  for (std::size_t e = 0; e < 5; ++e) {
    const double load = static_cast<double>(rows[e] * 5) / static_cast<double>(2 * tokens);
    level[e] = load > 1.1 ? 2 : load > 0.8 ? 1 : 0;
  }
  for (std::size_t l = 0; l < 3; ++l)
    REQUIRE(std::ranges::count(level, l) > 0);
  // The layer that has each expert at its level.
  list widths(5);
  for (std::size_t e = 0; e < 5; ++e)
    widths[e] = three_levels[level[e]][e];
  compress::nested{layer, widths}.cut().forward(cpu, x, other);
  CHECK(support::same_bits(y, other));
  const std::vector<double> never{std::numeric_limits<double>::max(), std::numeric_limits<double>::infinity()};
  part.forward(cpu, x, y, compress::level_by_load{{never.data(), 2}});
  layer.forward(cpu, x, other);
  CHECK(support::same_bits(y, other));
  // A choice of one's own: the second expert of each token is narrow.
  part.forward(cpu, x, y, [](std::size_t, std::size_t e, double) { return e % 2; });
  for (std::size_t e = 0; e < 5; ++e)
    widths[e] = three_levels[e % 2][e];
  compress::nested{layer, widths}.cut().forward(cpu, x, other);
  CHECK(support::same_bits(y, other));
}

TEST_CASE("packed layers run at levels as well, in the panels that are there") {
  using bank = hmoe::experts::glu_bank<float, hmoe::experts::silu>;
  constexpr std::size_t wide_d = 72, tokens = 50;
  const auto check = [&](auto dispatch) {
    hmoe::moe_layer layer{hmoe::expert_set{bank(wide_d, {96, 70, 64}, hmoe::experts::biases::all)},
                          hmoe::routing::top_k_router<float>(wide_d, 3, 2), dispatch};
    support::random_source random(52);
    layer.visit_parameters([&](const hmoe::parameter_info&, auto view) { support::fill(random, view, 0.3); });
    const auto packed = hmoe::backends::simd<>::pack<hmoe::backends::formats::q8>(layer);
    const std::vector<list> levels{{96, 70, 64}, {32, 64, 0}, {64, 32, 32}};
    const compress::nested_levels part{packed, levels};
    CHECK(part.experts().template bank<0>().weights().panels().data() ==
          packed.experts().template bank<0>().weights().panels().data());
    const auto classes = mixed_classes(tokens);
    const auto x = support::random_matrix<float>(random, tokens, wide_d);
    matrix<float> y(tokens, wide_d), of_level(tokens, wide_d);
    hmoe::workspace memory;
    const hmoe::context ctx{hmoe::backends::simd{}, hmoe::executors::serial{}, memory};
    memory.reserve(part.workspace_bytes(ctx, tokens));
    CHECK(support::allocations_in(
              [&] { part.forward(ctx, x, y, compress::level_by_token{{classes.data(), classes.size()}}); }) == 0);
    for (std::size_t l = 0; l < 3; ++l) {
      const compress::nested level{packed, levels[l]};
      level.forward(ctx, x, of_level);
      for (std::size_t t = 0; t < tokens; ++t)
        if (classes[t] == l)
          CHECK(same_row(y, of_level, t));
    }
  };
  check(hmoe::dispatch::sorted{});
  check(hmoe::dispatch::scattered{});
}

TEST_CASE("levels that are not there are refused before anything is written") {
  const auto layer = support::make_calibrated_layer();
  const compress::nested_levels part{layer, three_levels};
  const matrix<double> x(2, d);
  matrix<double> y(2, d);
  const auto error = [&](const auto& choice) { return support::error_of([&] { part.forward(cpu, x, y, choice); }); };
  const std::vector<std::uint8_t> classes{0, 3};
  CHECK(error(compress::level_by_token{{classes.data(), 2}}) == "hmoe: token 1 shall run at level 3, there are 3");
  CHECK(error(compress::level_by_token{{classes.data(), 1}}) == "hmoe: levels of 1 tokens are given, the batch has 2");
  const std::vector<double> limits{1.0, 1.0};
  CHECK(error(compress::level_by_load{{limits.data(), 1}}) ==
        "hmoe: 1 limits of loads are given for 3 levels, needed is one less than there are levels");
  CHECK(error(compress::level_by_load{{limits.data(), 2}}) ==
        "hmoe: limit 1 of loads is 1: limits ascend and are not below 0");
  CHECK(support::error_of([&] { (void)compress::nested_levels(layer, {{1, 1}}); }) ==
        "hmoe: level 0 has 2 widths for a layer of 5 experts");
  CHECK(support::error_of([&] { (void)compress::nested_levels(layer, {{5, 9, 3, 6, 6}}); }) ==
        "hmoe: expert 1 shall run at width 9, it has 4");
  auto tape = layer.make_tape(2);
  auto gradients = layer.make_gradients();
  auto into = part.part_of(gradients);
  matrix<double> dx(2, d);
  layer.forward(cpu, x, y, tape);
  CHECK(support::error_of([&] {
          part.backward(cpu, tape, y, dx, into);
        }).starts_with("hmoe: the tape's plan is of 5 experts, needed is one of 5 at 3 levels"));
}
