// SPDX-License-Identifier: MIT
// A router that reads another tensor than the experts, of another size.
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/any_router.hpp>
#include <hmoe/routing/presets.hpp>

#include "support/error_of.hpp"
#include "support/finite_differences.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::matrix;
using support::error_of;

namespace {
constexpr std::size_t tokens = 7, d = 4, d_router = 6, experts = 5;
using bank = hmoe::experts::glu_bank<double, hmoe::experts::silu>;
using gemma4 = routing::router<routing::own_input<routing::rms_normalized<routing::linear<double>>>, routing::top_k<>,
                               routing::scaled_per_expert<double>, routing::sigmoid_gated<double>>;
using plain = routing::router<routing::linear<double>, routing::top_k<>>;

/// Gemma 4's router, with a gated shared expert in addition, whose gate reads router_x as well.
auto own_input_layer() {
  hmoe::moe_layer layer{hmoe::expert_set{bank(d, {1, 2, 3, 1, 2, 2})},
                        gemma4{{d_router, experts, 0.1},
                               2,
                               routing::scaled_per_expert<double>(experts),
                               routing::sigmoid_gated<double>(d_router)}};
  support::random_source random(31);
  layer.visit_parameters([&](const hmoe::parameter_info&, auto view) { support::fill(random, view, 2); });
  return layer;
}
const hmoe::context cpu{hmoe::backends::reference{}};

struct batch {
  support::random_source random{32};
  matrix<double> x = support::random_matrix<double>(random, tokens, d),
                 router_x = support::random_matrix<double>(random, tokens, d_router),
                 dy = support::random_matrix<double>(random, tokens, d),
                 a = support::random_matrix<double>(random, tokens, experts);
  matrix<double> y{tokens, d}, dx{tokens, d}, d_router_x{tokens, d_router};
};
} // namespace

TEST_CASE("the output is the experts' of x with the weights of router_x; bits do not depend on threads or dispatch") {
  const auto layer = own_input_layer();
  batch b;
  layer.forward(cpu, b.x, b.y, {.router_x = b.router_x});
  hmoe::router_trace<double> trace;
  hmoe::assignment<double> assigned;
  trace.resize(tokens, experts, 0, false);
  const hmoe::workspace::scope scope(cpu.workspace());
  layer.router().forward(cpu, std::as_const(b.router_x).view(), trace, assigned);
  for (std::size_t t = 0; t < tokens; ++t) {
    std::vector<double> expected(d);
    for (std::size_t i = 0; i < assigned.experts_of(t).size(); ++i) {
      const auto& e = layer.experts().bank<0>();
      const std::size_t id = assigned.experts_of(t)[i];
      for (std::size_t h = 0; h < e.width(id); ++h) {
        double g = 0, u = 0;
        for (std::size_t c = 0; c < d; ++c) {
          g += e.gate(id)(h, c) * b.x(t, c);
          u += e.up(id)(h, c) * b.x(t, c);
        }
        for (std::size_t c = 0; c < d; ++c)
          expected[c] += assigned.weights_of(t)[i] * e.down(id)(c, h) * g / (1 + std::exp(-g)) * u;
      }
    }
    for (std::size_t c = 0; c < d; ++c)
      CHECK(b.y(t, c) == doctest::Approx(expected[c]).epsilon(1e-12));
  }
  matrix<double> again(tokens, d);
  const hmoe::context threads{hmoe::backends::reference{}, hmoe::executors::openmp{2}};
  layer.forward(threads, b.x, again, {.router_x = b.router_x});
  CHECK(std::equal(again.data(), again.data() + again.size(), b.y.data()));
}

TEST_CASE("gradients of x, router_x and every parameter, against finite differences") {
  auto layer = own_input_layer();
  batch b;
  auto tape = layer.make_tape(tokens), probe = layer.make_tape(tokens);
  auto gradients = layer.make_gradients();
  layer.forward(cpu, b.x, b.y, tape, {.router_x = b.router_x});
  std::copy_n(b.a.data(), b.a.size(), tape.trace().d_logits().data());
  std::fill_n(b.d_router_x.data(), b.d_router_x.size(), 99.0); // is written, not added to
  layer.backward(cpu, tape, b.dy, b.dx, b.d_router_x, gradients);
  const auto loss = [&] {
    matrix<double> y(tokens, d);
    layer.forward(cpu, b.x, y, probe, {.router_x = b.router_x});
    if (!std::ranges::equal(std::as_const(tape).assignment().experts(), std::as_const(probe).assignment().experts()))
      return std::numeric_limits<double>::quiet_NaN();
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i)
      sum += b.dy.data()[i] * y.data()[i];
    for (std::size_t i = 0; i < b.a.size(); ++i)
      sum += b.a.data()[i] * std::as_const(probe).trace().logits().data()[i];
    return sum;
  };
  const support::difference_options options{.floor = 1e-2};
  CHECK(support::gradient_error({b.x.data(), b.x.size()}, {b.dx.data(), b.dx.size()}, loss, options) < 1e-6);
  CHECK(support::gradient_error({b.router_x.data(), b.router_x.size()}, {b.d_router_x.data(), b.d_router_x.size()},
                                loss, options) < 1e-6);
  std::vector<hmoe::parameter<double>> list;
  layer.append_parameters(gradients, list);
  for (const auto& p : list) {
    INFO(p.name);
    CHECK(support::gradient_error(p.value, p.gradient, loss, options) < 1e-6);
  }
}

TEST_CASE("a router of a kind chosen at run time says what it reads, with the same bits") {
  const auto layer = own_input_layer();
  using context_type = std::remove_const_t<decltype(cpu)>;
  using any = routing::any_router<double, context_type>;
  hmoe::moe_layer held{layer.experts(), any(layer.router())};
  CHECK(held.reads_router_x());
  batch b, c;
  auto tape = layer.make_tape(tokens), held_tape = held.make_tape(tokens);
  auto gradients = layer.make_gradients();
  auto held_gradients = held.make_gradients();
  layer.forward(cpu, b.x, b.y, tape, {.router_x = b.router_x});
  held.forward(cpu, c.x, c.y, held_tape, {.router_x = c.router_x});
  layer.backward(cpu, tape, b.dy, b.dx, b.d_router_x, gradients);
  held.backward(cpu, held_tape, c.dy, c.dx, c.d_router_x, held_gradients);
  CHECK(std::equal(b.y.data(), b.y.data() + b.y.size(), c.y.data()));
  CHECK(std::equal(b.d_router_x.data(), b.d_router_x.data() + b.d_router_x.size(), c.d_router_x.data()));
  CHECK_FALSE(hmoe::moe_layer{hmoe::expert_set{bank(d, {1, 2})}, any(plain(d, 2, 1))}.reads_router_x());
}

TEST_CASE("padding: router_x of padding tokens does not matter, and gets no gradient") {
  const auto layer = own_input_layer();
  batch b;
  std::vector<std::uint8_t> valid(tokens, 1);
  valid[2] = 0;
  std::ranges::fill(b.router_x.row(2), std::nan(""));
  auto tape = layer.make_tape(tokens);
  auto gradients = layer.make_gradients();
  layer.forward(cpu, b.x, b.y, tape, {.router_x = b.router_x, .valid = valid});
  layer.backward(cpu, tape, b.dy, b.dx, b.d_router_x, gradients);
  CHECK(std::ranges::all_of(b.d_router_x.row(2), [](double v) { return v == 0; }));
  CHECK(std::all_of(b.d_router_x.data(), b.d_router_x.data() + b.d_router_x.size(), [](double v) { return v == v; }));
}

TEST_CASE("shapes and overlaps are told in words, before anything is written") {
  auto layer = own_input_layer();
  batch b;
  auto tape = layer.make_tape(tokens);
  auto gradients = layer.make_gradients();
  CHECK(error_of([&] { layer.forward(cpu, b.x, b.y); }) ==
        "hmoe: the router of this layer reads routing_inputs::router_x, which is 0 x 0, needed is 7 x 6");
  CHECK(error_of([&] { layer.forward(cpu, b.x, b.y, {.router_x = b.x}); }) ==
        "hmoe: the router of this layer reads routing_inputs::router_x, which is 7 x 4, needed is 7 x 6");
  matrix<double> wide(tokens, d + d_router);
  CHECK(error_of([&] {
          layer.forward(cpu, b.x, wide.view().column_block(3, d),
                        {.router_x = std::as_const(wide).view().column_block(0, d_router)});
        }) == "hmoe: y overlaps the input; they must be different memory");
  layer.forward(cpu, b.x, b.y, tape, {.router_x = b.router_x});
  b.dx(0, 0) = 5;
  CHECK(error_of([&] {
          layer.backward(cpu, tape, b.dy, b.dx, gradients);
        }).find("backward(ctx, tape, dy, dx, d_router_x, gradients); d_router_x is 0 x 0, needed is 7 x 6") !=
        std::string::npos);
  CHECK(error_of([&] {
          layer.backward(cpu, tape, b.dy, wide.view().column_block(3, d), wide.view().column_block(0, d_router),
                         gradients);
        }) == "hmoe: d_router_x overlaps dx; they must be different memory");
  CHECK(b.dx(0, 0) == 5);

  hmoe::moe_layer of_x{hmoe::expert_set{bank(d, {1, 2})}, plain(d, 2, 1)};
  auto tape_of_x = of_x.make_tape(tokens);
  auto gradients_of_x = of_x.make_gradients();
  CHECK(error_of([&] {
          of_x.forward(cpu, b.x, b.y, {.router_x = b.router_x});
        }).find("router_x is given, 7 x 6, but the router of this layer reads x") != std::string::npos);
  of_x.forward(cpu, b.x, b.y, tape_of_x);
  CHECK(error_of([&] { of_x.backward(cpu, tape_of_x, b.dy, b.dx, b.d_router_x, gradients_of_x); }) ==
        "hmoe: the router of this layer reads x, so that its gradient is in dx: leave d_router_x out");
  CHECK(error_of([] {
          hmoe::moe_layer{hmoe::expert_set{bank(d, {1, 2})}, plain(d_router, 2, 1)};
        }).find("the router reads tokens of d_model 6, the experts of 4") != std::string::npos);
}

TEST_CASE("the announced workspace suffices, and no tokens are a legal batch") {
  const auto layer = own_input_layer();
  batch b;
  hmoe::context ctx{hmoe::backends::reference{}};
  const std::size_t bytes = layer.workspace_bytes(ctx, tokens, true);
  auto tape = layer.make_tape(tokens);
  auto gradients = layer.make_gradients();
  layer.forward(ctx, b.x, b.y, tape, {.router_x = b.router_x});
  layer.backward(ctx, tape, b.dy, b.dx, b.d_router_x, gradients);
  CHECK(ctx.workspace().peak() <= bytes);
  matrix<double> none(0, d), y(0, d);
  CHECK_NOTHROW(layer.forward(ctx, none, y));
}
