// SPDX-License-Identifier: MIT
#include <hmoe/experts/widths.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/losses/objective.hpp>
#include <hmoe/losses/z.hpp>

#include "layer/small_layer.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <thread>
#include <utility>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::index_t;
using hmoe::matrix;
using hmoe::matrix_view;
using hmoe::vector_view;
using support::d;
using support::glu;
using support::mlp;

namespace {
void copy(matrix_view<double> from, matrix_view<double> to) {
  for (std::size_t r = 0; r < from.rows(); ++r)
    std::copy(from.row(r).begin(), from.row(r).end(), to.row(r).begin());
}
template <class Experts> auto with_top_2(Experts experts) {
  const std::size_t count = experts.size();
  return hmoe::moe_layer{std::move(experts), routing::top_k_router<double>(d, count, 2)};
}
} // namespace

TEST_CASE("unequal widths give the numbers of experts padded with zeros to the widest") {
  const std::vector<std::size_t> widths{2, 6, 1};
  auto ragged = with_top_2(hmoe::expert_set{glu(d, widths)});
  auto padded = with_top_2(hmoe::expert_set{glu(d, {6, 6, 6})});
  support::randomize(ragged, 1);
  copy(ragged.router().score().weight(), padded.router().score().weight());
  glu& narrow = ragged.experts().bank<0>();
  glu& wide = padded.experts().bank<0>();
  for (std::size_t e = 0; e < 3; ++e) {
    copy(narrow.gate(e), wide.gate(e).row_block(0, widths[e]));
    copy(narrow.up(e), wide.up(e).row_block(0, widths[e]));
    copy(narrow.down(e), wide.down(e).column_block(0, widths[e]));
  }
  support::random_source random(2);
  const auto x = support::random_matrix<double>(random, 50, d), dy = support::random_matrix<double>(random, 50, d);
  support::step a(ragged, x, dy), b(padded, x, dy);
  CHECK(support::same_bits(a.y, b.y));
  CHECK(support::same_bits(a.dx, b.dx));
  for (std::size_t e = 0; e < 3; ++e) {
    glu &left = a.gradients.experts.bank<0>(), &right = b.gradients.experts.bank<0>();
    CHECK(support::largest_difference(left.gate(e), right.gate(e).row_block(0, widths[e])) == 0);
    CHECK(support::largest_difference(left.up(e), right.up(e).row_block(0, widths[e])) == 0);
    CHECK(support::largest_difference(left.down(e), right.down(e).column_block(0, widths[e])) == 0);
  }
}

TEST_CASE("equal widths are a uniform layer, however they came about, bit for bit") {
  auto uniform = with_top_2(hmoe::expert_set{glu(d, hmoe::widths::uniform{.count = 4, .total = 12})});
  auto arithmetic =
      with_top_2(hmoe::expert_set{glu(d, hmoe::widths::arithmetic{.count = 4, .total = 12, .first = 5, .last = 5})});
  auto banks = with_top_2(hmoe::expert_set{glu(d, {3}), glu(d, {3}), glu(d, {3, 3})});
  uniform.initialize(hmoe::seed{5});
  arithmetic.initialize(hmoe::seed{5});
  banks.initialize(hmoe::seed{5});
  support::random_source random(3);
  const auto x = support::random_matrix<double>(random, 70, d), dy = support::random_matrix<double>(random, 70, d);
  support::step a(uniform, x, dy), b(arithmetic, x, dy);
  support::step c(banks, x, dy);
  CHECK(support::same_bits(a.y, b.y));
  CHECK(support::same_bits(a.y, c.y));
  CHECK(support::same_bits(a.dx, b.dx));
  CHECK(support::same_bits(a.dx, c.dx));
  CHECK(a.all_gradients() == b.all_gradients());
  CHECK(a.all_gradients() == c.all_gradients());
}

TEST_CASE("the layer is what its formula says, written out plainly") {
  auto layer = with_top_2(hmoe::expert_set{glu(d, {3, 1, 4})});
  support::randomize(layer, 4);
  support::random_source random(5);
  const auto x = support::random_matrix<double>(random, 20, d);
  matrix<double> y(20, d);
  layer.forward(support::cpu, x, y);
  const glu& bank = std::as_const(layer).experts().bank<0>();
  for (std::size_t t = 0; t < 20; ++t) {
    std::array<double, 3> p{};
    for (std::size_t e = 0; e < 3; ++e) {
      double z = 0;
      for (std::size_t i = 0; i < d; ++i)
        z += std::as_const(layer).router().score().weight()(e, i) * x(t, i);
      p[e] = std::exp(z);
    }
    const auto least = static_cast<std::size_t>(std::min_element(p.begin(), p.end()) - p.begin());
    std::array<double, d> expected{};
    double total = 0;
    for (std::size_t e = 0; e < 3; ++e)
      total += e == least ? 0 : p[e];
    for (std::size_t e = 0; e < 3; ++e)
      for (std::size_t h = 0; h < bank.width(e) && e != least; ++h) {
        double g = 0, u = 0;
        for (std::size_t i = 0; i < d; ++i) {
          g += bank.gate(e)(h, i) * x(t, i);
          u += bank.up(e)(h, i) * x(t, i);
        }
        for (std::size_t i = 0; i < d; ++i)
          expected[i] += p[e] / total * bank.down(e)(i, h) * (g / (1 + std::exp(-g)) * u);
      }
    for (std::size_t i = 0; i < d; ++i)
      CHECK(y(t, i) == doctest::Approx(expected[i]).epsilon(1e-12));
  }
}

TEST_CASE("permuting the experts permutes what belongs to them and nothing else") {
  const std::vector<std::size_t> order{2, 0, 3, 1}, widths{1, 4, 2, 3};
  auto layer = with_top_2(hmoe::expert_set{glu(d, widths)});
  support::randomize(layer, 6);
  auto permuted = with_top_2(hmoe::expert_set{glu(d, {widths[2], widths[0], widths[3], widths[1]})});
  for (std::size_t e = 0; e < 4; ++e) {
    copy(layer.experts().bank<0>().gate(order[e]), permuted.experts().bank<0>().gate(e));
    copy(layer.experts().bank<0>().up(order[e]), permuted.experts().bank<0>().up(e));
    copy(layer.experts().bank<0>().down(order[e]), permuted.experts().bank<0>().down(e));
    copy(layer.router().score().weight().row_block(order[e], 1), permuted.router().score().weight().row_block(e, 1));
  }
  support::random_source random(7);
  const auto x = support::random_matrix<double>(random, 60, d), dy = support::random_matrix<double>(random, 60, d);
  support::step a(layer, x, dy), b(permuted, x, dy);
  CHECK(support::largest_difference(a.y.view(), b.y.view()) < 1e-13);
  CHECK(support::largest_difference(a.dx.view(), b.dx.view()) < 1e-12);
  for (std::size_t e = 0; e < 4; ++e) {
    CHECK(std::as_const(a.tape).trace().tokens_per_expert()[order[e]] ==
          std::as_const(b.tape).trace().tokens_per_expert()[e]);
    CHECK(support::largest_difference(a.gradients.experts.bank<0>().down(order[e]),
                                      b.gradients.experts.bank<0>().down(e)) < 1e-11);
  }
}

TEST_CASE("a token without an expert gets zero, and its dx comes from the router's losses only") {
  const double limit = 0.2;
  const auto first_half = [limit](vector_view<const double> p,
                                  vector_view<index_t> chosen) { // captures: not assignable
    chosen[0] = 1;
    return p[0] < limit ? 1U : 0U;
  };
  auto layer = support::small_layer(
      routing::router<routing::linear<double>, decltype(first_half)>(routing::linear<double>(d, 5), first_half), 8);
  support::random_source random(9);
  const auto x = support::random_matrix<double>(random, 40, d), dy = support::random_matrix<double>(random, 40, d);
  support::step plain(layer, x, dy);
  const auto& assigned = std::as_const(plain.tape).assignment();
  REQUIRE(assigned.size() > 0);
  REQUIRE(assigned.size() < 40);

  auto tape = layer.make_tape(40);
  auto gradients = layer.make_gradients();
  matrix<double> y(40, d), dx(40, d);
  layer.forward(support::cpu, x, y, tape);
  (void)hmoe::objective{hmoe::losses::z{0.5}}.evaluate(layer, tape);
  layer.backward(support::cpu, tape, dy, dx, gradients);
  for (std::size_t t = 0; t < 40; ++t) {
    if (!assigned.experts_of(t).empty())
      continue;
    for (std::size_t i = 0; i < d; ++i) {
      CHECK(plain.y(t, i) == 0);
      CHECK(plain.dx(t, i) == 0);
      double from_router = 0;
      for (std::size_t e = 0; e < 5; ++e)
        from_router += tape.trace().d_logits()(t, e) * layer.router().score().weight()(e, i);
      CHECK(from_router != 0);
      CHECK(dx(t, i) == doctest::Approx(from_router).epsilon(1e-12));
    }
  }
}

TEST_CASE("no token and one token are legal batches, also after longer ones on the same tape") {
  const auto layer = support::small_layer(routing::top_p_router<double>(d, 5, 0.6), 10);
  support::random_source random(11);
  const auto x = support::random_matrix<double>(random, 9, d), dy = support::random_matrix<double>(random, 9, d);
  support::step longer(layer, x, dy);
  for (const std::size_t tokens : {0U, 1U}) {
    matrix<double> y(tokens, d), dx(tokens, d);
    auto gradients = layer.make_gradients();
    const matrix_view<const double> some = x.view().row_block(0, tokens), dy_some = dy.view().row_block(0, tokens);
    layer.forward(support::cpu, some, y, longer.tape);
    layer.backward(support::cpu, longer.tape, dy_some, dx, gradients);
    for (std::size_t i = 0; i < tokens * d; ++i) {
      CHECK(y.data()[i] == longer.y.data()[i]);
      CHECK(dx.data()[i] == longer.dx.data()[i]);
    }
    if (tokens == 0)
      gradients.visit_parameters([](const hmoe::parameter_info&, matrix_view<double> view) {
        CHECK(std::all_of(view.data(), view.data() + view.size(), [](double g) { return g == 0; }));
      });
  }
}

TEST_CASE("gradients are added to, and the tape serves a second backward pass") {
  const auto layer = support::small_layer(routing::top_k_router<double>(d, 5, 2), 12);
  support::random_source random(13);
  const auto x = support::random_matrix<double>(random, 9, d), dy = support::random_matrix<double>(random, 9, d);
  support::step once(layer, x, dy);
  const auto single = once.all_gradients();
  const auto dx = once.dx;
  layer.backward(support::cpu, once.tape, dy, once.dx, once.gradients);
  const auto doubled = once.all_gradients();
  for (std::size_t i = 0; i < single.size(); ++i)
    CHECK(doubled[i] == doctest::Approx(2 * single[i]).epsilon(1e-13));
  CHECK(support::same_bits(dx, once.dx));
}

TEST_CASE("one layer serves two threads, each with a context and a tape of its own") {
  const auto layer = support::small_layer(routing::top_k_router<double>(d, 5, 2), 14, hmoe::dispatch::sorted{});
  support::random_source random(15);
  const auto x = support::random_matrix<double>(random, 200, d), dy = support::random_matrix<double>(random, 200, d);
  support::step expected(layer, x, dy);
  std::array<matrix<double>, 2> y{matrix<double>(200, d), matrix<double>(200, d)}, dx = y;
  std::array gradients{layer.make_gradients(), layer.make_gradients()};
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 2; ++i)
    threads.emplace_back([&, i] {
      const hmoe::context mine{hmoe::backends::reference{}};
      auto tape = layer.make_tape(200);
      for (int round = 0; round < 3; ++round) {
        gradients[i].set_zero();
        layer.forward(mine, x, y[i], tape);
        layer.backward(mine, tape, dy, dx[i], gradients[i]);
      }
    });
  for (std::thread& thread : threads)
    thread.join();
  const auto all = expected.all_gradients();
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(support::same_bits(y[i], expected.y));
    CHECK(support::same_bits(dx[i], expected.dx));
    std::size_t next = 0;
    gradients[i].visit_parameters([&](const hmoe::parameter_info&, matrix_view<double> view) {
      CHECK(std::equal(view.data(), view.data() + view.size(), all.begin() + static_cast<std::ptrdiff_t>(next)));
      next += view.size();
    });
  }
}

TEST_CASE("initialisation is a function of the seed, and narrow and wide experts start equally loud") {
  const std::size_t size = 48;
  hmoe::moe_layer layer{hmoe::expert_set{glu(size, {16, 512}), mlp(size, {16, 512})},
                        routing::top_k_router<double>(size, 4, 1)};
  auto again = layer, other = layer;
  layer.initialize(hmoe::seed{1});
  again.initialize(hmoe::seed{1});
  other.initialize(hmoe::seed{2});
  std::vector<double> a, b, c;
  const auto collect = [](auto& l, std::vector<double>& all) {
    l.visit_parameters([&](const hmoe::parameter_info&, matrix_view<double> v) {
      all.insert(all.end(), v.data(), v.data() + v.size());
    });
  };
  collect(layer, a);
  collect(again, b);
  collect(other, c);
  CHECK(a == b);
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i] == c[i])
      FAIL_CHECK("two seeds share value " << i);

  support::random_source random(17);
  const std::size_t tokens = 200;
  const auto x = support::random_matrix<double>(random, tokens, size, 1.7);
  std::array<double, 4> variance{};
  for (std::size_t e = 0; e < 4; ++e) {
    matrix<double> y(tokens, size), saved(tokens, layer.experts().saved_per_row(e));
    layer.experts().forward(hmoe::backends::reference{}, e, x.view(), y.view(), saved.view());
    for (std::size_t i = 0; i < y.size(); ++i)
      variance[e] += y.data()[i] * y.data()[i] / static_cast<double>(y.size());
  }
  CHECK(variance[1] / variance[0] == doctest::Approx(1).epsilon(0.25));
  CHECK(variance[3] / variance[2] == doctest::Approx(1).epsilon(0.25));

  auto quiet = layer;
  quiet.initialize(hmoe::seed{1}, {.output_gain = 0.5});
  CHECK(quiet.experts().bank<0>().down(0)(0, 0) == 0.5 * layer.experts().bank<0>().down(0)(0, 0));
  CHECK(quiet.experts().bank<0>().gate(0)(0, 0) == layer.experts().bank<0>().gate(0)(0, 0));
}
