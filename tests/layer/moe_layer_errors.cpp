// SPDX-License-Identifier: MIT
// What is refused, with which words, and that nothing was written by then.
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/objective.hpp>

#include "layer/small_layer.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <memory_resource>
#include <string>
#include <vector>

namespace routing = hmoe::routing;
using hmoe::index_t;
using hmoe::matrix;
using hmoe::matrix_view;
using hmoe::vector_view;
using support::cpu;
using support::d;
using support::error_of;

namespace {
auto a_layer() { return support::small_layer(routing::top_k_router<double>(d, 5, 2), 1); }

/// A [rows × cols] output full of sevens.
struct untouched {
  matrix<double> m;
  untouched(std::size_t rows, std::size_t cols) : m(rows, cols) { std::fill_n(m.data(), m.size(), 7.0); }
  [[nodiscard]] bool intact() const {
    return std::all_of(m.data(), m.data() + m.size(), [](double v) { return v == 7; });
  }
};
} // namespace

TEST_CASE("wrong shapes are refused with their numbers, and y stays as it was") {
  const auto layer = a_layer();
  auto tape = layer.make_tape(3);
  untouched y(3, d), narrow(3, d - 1), shorter(2, d);
  const matrix<double> x(3, d), wide(3, d + 2);
  const std::string wrong_x = "hmoe: a token has 7 values, the layer's d_model is 5";
  CHECK(error_of([&] { layer.forward(cpu, wide, y.m); }) == wrong_x);
  CHECK(error_of([&] { layer.forward(cpu, wide, y.m, tape); }) == wrong_x);
  CHECK(error_of([&] { layer.forward(cpu, x, narrow.m); }) == "hmoe: y is 3 x 4, needed is 3 x 5");
  CHECK(error_of([&] { layer.forward(cpu, x, shorter.m, tape); }) == "hmoe: y is 2 x 5, needed is 3 x 5");
  CHECK(y.intact());
  CHECK(narrow.intact());
  CHECK(shorter.intact());
}

TEST_CASE("outputs that overlap inputs are refused") {
  const auto layer = a_layer();
  auto tape = layer.make_tape(3);
  auto gradients = layer.make_gradients();
  untouched both(6, d);
  const matrix_view<double> all = both.m;
  const auto overlap = [](const char* name) {
    return std::string("hmoe: ") + name + " overlaps the input; they must be different memory";
  };
  CHECK(error_of([&] { layer.forward(cpu, all.row_block(0, 3), all.row_block(0, 3)); }) == overlap("y"));
  CHECK(error_of([&] { layer.forward(cpu, all.row_block(0, 3), all.row_block(2, 3)); }) == overlap("y"));
  CHECK(both.intact());
  CHECK(error_of([&] { layer.forward(cpu, all.row_block(0, 3), all.row_block(3, 3), tape); }) == "no error");
  CHECK(error_of([&] { layer.backward(cpu, tape, all.row_block(0, 3), all.row_block(1, 3), gradients); }) ==
        overlap("dx"));
}

TEST_CASE("input and output may be columns of one buffer") {
  const auto layer = a_layer();
  auto tape = layer.make_tape(3);
  auto gradients = layer.make_gradients();
  untouched both(3, 2 * d);
  const matrix_view<double> x = both.m.view().column_block(0, d), y = both.m.view().column_block(d, d);
  std::fill_n(both.m.data(), both.m.size(), 0.5);
  matrix<double> plain(3, d);
  layer.forward(cpu, x, plain);
  CHECK(error_of([&] { layer.forward(cpu, x, y); }) == "no error");
  CHECK(support::largest_difference(y, plain.view()) == 0);
  CHECK(error_of([&] { layer.forward(cpu, x, y, tape); }) == "no error");
  CHECK(error_of([&] { layer.backward(cpu, tape, x, y, gradients); }) == "no error");
  CHECK(error_of([&] { layer.forward(cpu, x, both.m.view().column_block(d - 1, d)); }) ==
        "hmoe: y overlaps the input; they must be different memory");
}

TEST_CASE("backward and losses need what a forward pass left in the tape") {
  const auto layer = a_layer();
  const hmoe::objective aux{hmoe::losses::load_balance{}};
  auto tape = layer.make_tape(3);
  auto gradients = layer.make_gradients();
  const matrix<double> x(3, d), longer(4, d);
  matrix<double> y(3, d);
  untouched dx(3, d), long_dx(4, d);
  CHECK(error_of([&] { layer.backward(cpu, tape, x, dx.m, gradients); }) ==
        "hmoe: backward needs a tape that a forward pass of this layer has filled");
  CHECK(error_of([&] { (void)aux.evaluate(layer, tape); }) ==
        "hmoe: an auxiliary loss needs a tape that a forward pass of this layer has filled");
  hmoe::tape<double> inference(std::pmr::get_default_resource(), false);
  CHECK(error_of([&] { layer.forward(cpu, x, y, inference); }) ==
        "hmoe: this tape does not record: take one from layer.make_tape(tokens)");
  layer.forward(cpu, x, y, tape);
  CHECK(error_of([&] { layer.backward(cpu, tape, longer, long_dx.m, gradients); }) ==
        "hmoe: dy has 4 rows, the tape holds 3 tokens");
  CHECK(error_of([&] { layer.backward(cpu, tape, x, long_dx.m, gradients); }) == "hmoe: dx is 4 x 5, needed is 3 x 5");
  CHECK(dx.intact());
  CHECK(long_dx.intact());
}

TEST_CASE("gradients and tapes of another layer are refused") {
  const auto layer = a_layer();
  hmoe::moe_layer other{
      hmoe::expert_set{support::glu(d, {1, 4, 3}, hmoe::experts::biases::all), support::mlp(d, {3, 1})},
      routing::top_k_router<double>(d, 5, 2), hmoe::dispatch::dense{}};
  hmoe::moe_layer fewer{hmoe::expert_set{support::glu(d, {1, 4}, hmoe::experts::biases::all), support::mlp(d, {3, 1})},
                        routing::top_k_router<double>(d, 4, 2), hmoe::dispatch::dense{}};
  auto tape = layer.make_tape(3), foreign_tape = fewer.make_tape(3);
  auto foreign = other.make_gradients(), too_few = fewer.make_gradients(), own = layer.make_gradients();
  const matrix<double> x(3, d);
  matrix<double> y(3, d);
  untouched dx(3, d);
  layer.forward(cpu, x, y, tape);
  fewer.forward(cpu, x, y, foreign_tape);
  CHECK(error_of([&] { layer.backward(cpu, tape, x, dx.m, foreign); }) ==
        "hmoe: the gradients are of a layer whose expert 2 has width 3, this one's has 2");
  CHECK(error_of([&] { layer.backward(cpu, tape, x, dx.m, too_few); }) ==
        "hmoe: the gradients are of a layer with 4 experts, this one has 5");
  CHECK(error_of([&] { layer.backward(cpu, foreign_tape, x, dx.m, own); }) ==
        "hmoe: the tape is of a layer that routes to 4 experts, this one to 5");
  CHECK(dx.intact());
}

TEST_CASE("a router that does not fit the experts is refused when the layer is made") {
  const auto make = [](std::size_t size, std::size_t count) {
    return error_of([&] {
      (void)hmoe::moe_layer{hmoe::expert_set{support::glu(d, {1, 2})}, routing::top_k_router<double>(size, count, 1)};
    });
  };
  CHECK(make(d, 2) == "no error");
  CHECK(make(d, 3) == "hmoe: the router chooses among 3 experts, the layer has 2");
  CHECK(make(d + 1, 2) == "hmoe: the router reads tokens of d_model 6, the experts of 5");
}

TEST_CASE("a logit that is not finite is refused before y is written") {
  const auto layer = a_layer();
  auto tape = layer.make_tape(3);
  matrix<double> x(3, d);
  untouched y(3, d);
  layer.forward(cpu, x, y.m, tape);
  CHECK(tape.complete());
  std::fill_n(y.m.data(), y.m.size(), 7.0);
  x(1, 2) = std::numeric_limits<double>::quiet_NaN();
  CHECK(error_of([&] { layer.forward(cpu, x, y.m, tape); }) ==
        "hmoe: the router's logit of token 1 for expert 0 is nan");
  CHECK(error_of([&] { layer.forward(cpu, x, y.m); }) == "hmoe: the router's logit of token 1 for expert 0 is nan");
  CHECK(y.intact());
  CHECK(!tape.complete()); // backward must not run on half of a pass
}

TEST_CASE("what a user's selection does wrong is refused before y is written") {
  const auto forward_with = [](std::vector<index_t> ids, std::size_t count) {
    const auto select = [ids, count](vector_view<const double>, vector_view<index_t> chosen) {
      std::copy(ids.begin(), ids.end(), chosen.begin());
      return count;
    };
    const auto layer = support::small_layer(
        routing::router<routing::linear<double>, decltype(select)>(routing::linear<double>(d, 5), select), 1);
    untouched y(2, d);
    const matrix<double> x(2, d);
    const std::string text = error_of([&] { layer.forward(cpu, x, y.m); });
    CHECK((text == "no error" || y.intact()));
    return text;
  };
  CHECK(forward_with({1, 4}, 2) == "no error");
  CHECK(forward_with({3, 3}, 2) == "hmoe: the selection chose expert 3 twice for token 0");
  CHECK(forward_with({5}, 1) == "hmoe: the selection chose expert 5 of 5 for token 0");
  CHECK(forward_with({}, 6) == "hmoe: the selection chose 6 experts for token 0, at most 5 are possible");
}

TEST_CASE("initial weights that would not be finite are refused before any is drawn") {
  auto layer = a_layer();
  const double before = layer.experts().bank<0>().gate(0)(0, 0);
  CHECK(error_of([&] {
          layer.initialize(hmoe::seed{3}, {.router_stddev = std::numeric_limits<double>::infinity()});
        }) == "hmoe: initialize with output_gain = 1 and router_stddev = inf: both must be finite");
  CHECK(error_of([&] { layer.initialize(hmoe::seed{3}, {.output_gain = -std::numeric_limits<double>::infinity()}); }) ==
        "hmoe: initialize with output_gain = -inf and router_stddev = 0.02: both must be finite");
  CHECK(layer.experts().bank<0>().gate(0)(0, 0) == before);
}
