// SPDX-License-Identifier: MIT
#include <hmoe/compress/calibration.hpp>
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/dispatch/padded.hpp>
#include <hmoe/experts/zero.hpp>
#include <hmoe/routing/weightings/on_input_side.hpp>

#include "compress/calibrated_layer.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <utility>

namespace compress = hmoe::compress;
using hmoe::matrix;
using support::cpu;
using support::d;

namespace {
template <class Layer> compress::calibration calibrated(const Layer& layer, const matrix<double>& x) {
  compress::calibration sums{layer};
  matrix<double> y(x.rows(), d);
  auto tape = layer.make_tape(x.rows());
  layer.forward(cpu, x, y, tape);
  sums.add(layer, tape);
  sums.add_gradient(cpu, layer, tape, x);
  return sums;
}
template <class Router, class Dispatch> auto with_zero_expert(Router router, Dispatch dispatch) {
  hmoe::moe_layer layer{hmoe::expert_set{support::glu(d, {4, 2}), hmoe::experts::zero_bank<double>(d)},
                        std::move(router), std::move(dispatch)};
  support::randomize(layer, 6);
  return layer;
}
} // namespace

TEST_CASE("rows that pad an expert are no rows, and experts without neurons have sums of their outputs") {
  support::random_source random(7);
  const auto x = support::random_matrix<double>(random, 9, d);
  using router = hmoe::routing::top_k_router<double>;
  const auto sorted = calibrated(with_zero_expert(router(d, 3, 2), hmoe::dispatch::sorted{}), x);
  const auto padded =
      calibrated(with_zero_expert(router(d, 3, 2), hmoe::dispatch::padded{hmoe::capacity::busiest{}}), x);
  std::size_t rows = 0;
  for (std::size_t e = 0; e < 3; ++e) {
    const auto &a = sorted.expert(e), &b = padded.expert(e);
    rows += a.rows;
    CHECK(a.rows == b.rows);
    CHECK(a.gradient_rows == a.rows * (e < 2 ? 1 : 0));
    CHECK(a.weighted_norm == b.weighted_norm);
    CHECK(a.output == b.output);
    REQUIRE(a.neurons.size() == (e == 0 ? 4 : e == 1 ? 2 : 0));
    for (std::size_t i = 0; i < a.neurons.size(); ++i) {
      CHECK(a.neurons[i].activation == b.neurons[i].activation);
      CHECK(a.neurons[i].effect == b.neurons[i].effect);
      CHECK(a.neurons[i].effect > 0);
    }
  }
  CHECK(rows == 18);
  CHECK(sorted.expert(2).weighted_norm == 0);
  CHECK(sorted.expert(2).weight_squared > 0);
}

TEST_CASE("where weights are on the input, outputs count as they are") {
  support::random_source random(8);
  const auto x = support::random_matrix<double>(random, 9, d);
  using router = hmoe::routing::router<hmoe::routing::linear<double>, hmoe::routing::top_k<>,
                                       hmoe::routing::on_input_side<hmoe::routing::renormalized>>;
  const auto sums = calibrated(with_zero_expert(router(d, 3, 2), hmoe::dispatch::sorted{}), x);
  for (std::size_t e = 0; e < 3; ++e)
    CHECK(sums.expert(e).weight_squared == static_cast<double>(sums.expert(e).rows));
  CHECK(sums.expert(0).output == sums.expert(0).weighted_output);
}

TEST_CASE("what is no pass of the layer is refused") {
  support::random_source random(9);
  const auto x = support::random_matrix<double>(random, 2, d);
  const auto layer = support::make_calibrated_layer();
  compress::calibration sums{layer};
  auto tape = layer.make_tape(2);
  CHECK(support::error_of([&] { sums.add(layer, tape); }) ==
        "hmoe: calibration needs a tape that a forward pass has filled: layer.forward(ctx, x, y, tape)");
  matrix<double> y(2, d);
  layer.forward(cpu, x, y, tape);
  CHECK(support::error_of([&] { sums.add_gradient(cpu, layer, tape, matrix<double>(3, d)); }) ==
        "hmoe: dy is 3 x 5, needed is 2 x 5");
  const auto other = with_zero_expert(support::calibrated_router(d, 3, 2), hmoe::dispatch::dense{});
  CHECK(support::error_of([&] { sums.add(other, tape); }) ==
        "hmoe: the calibration is of a layer with 5 experts and d_model 5, this one has 3 and 5");
  CHECK(support::error_of([&] { (void)calibrated(other, x); }) ==
        "hmoe: the tape's plan is of 0 experts, the layer has 3: calibrate with another dispatch strategy than "
        "dispatch::dense, which keeps no plan");
  CHECK(sums.tokens() == 0);
}
