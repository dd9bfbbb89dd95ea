// SPDX-License-Identifier: MIT
// Every derivative of the whole layer against finite differences, in double, away from ties.
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/objective.hpp>
#include <hmoe/losses/parameter_penalty.hpp>
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/losses/z.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/softmax_over_selected.hpp>

#include "layer/small_layer.hpp"
#include "support/finite_differences.hpp"

#include <doctest/doctest.h>

#include <vector>

namespace losses = hmoe::losses;
namespace routing = hmoe::routing;
using hmoe::index_t;
using hmoe::matrix;

namespace {
template <class Layer, class Objective> void check_gradients(Layer layer, const Objective& aux, std::uint64_t seed) {
  const std::size_t tokens = 6;
  support::random_source random(seed);
  auto x = support::random_matrix<double>(random, tokens, support::d);
  const auto dy = support::random_matrix<double>(random, tokens, support::d);
  matrix<double> y(tokens, support::d), dx(tokens, support::d);
  auto tape = layer.make_tape(tokens);
  auto gradients = layer.make_gradients();
  layer.forward(support::cpu, x, y, tape);
  (void)aux.evaluate(layer, tape);
  layer.backward(support::cpu, tape, dy, dx, gradients);
  const auto& experts = std::as_const(tape).assignment().experts();
  const std::vector<index_t> ids(experts.begin(), experts.end());

  auto scratch = layer.make_tape(tokens);
  const auto loss = [&] {
    layer.forward(support::cpu, x, y, scratch);
    const auto now = std::as_const(scratch).assignment().experts();
    REQUIRE(std::equal(now.begin(), now.end(), ids.begin(), ids.end())); // else the row of inputs is too near a tie
    double sum = aux.evaluate(layer, scratch).total();
    for (std::size_t i = 0; i < y.size(); ++i)
      sum += dy.data()[i] * y.data()[i];
    return sum;
  };
  CHECK(support::gradient_error({x.data(), x.size()}, {dx.data(), dx.size()}, loss) < 1e-6);
  std::vector<hmoe::parameter<double>> parameters;
  layer.append_parameters(gradients, parameters, "layer.");
  CHECK(parameters.size() == 3 * 6 + 2 * 2 + 1);
  for (const auto& p : parameters) {
    CAPTURE(p.name);
    CHECK(support::gradient_error(p.value, p.gradient, loss) < 1e-6);
  }
}

const hmoe::objective nothing{};
const hmoe::objective everything{losses::load_balance{0.5}, losses::parameter_penalty{0.7}, losses::router_entropy{0.3},
                                 losses::z{0.1}};
} // namespace

TEST_CASE("top-k, for one, some and all experts") {
  check_gradients(support::small_layer(routing::top_k_router<double>(support::d, 5, 2), 3), nothing, 1);
  check_gradients(support::small_layer(routing::top_k_router<double>(support::d, 5, 1), 4), everything, 2);
  check_gradients(support::small_layer(routing::top_k_router<double>(support::d, 5, 5), 5), everything, 3);
}
TEST_CASE("top-p with auxiliary losses, on the sorted strategy") {
  check_gradients(support::small_layer(routing::top_p_router<double>(support::d, 5, 0.7), 6, hmoe::dispatch::sorted{}),
                  everything, 4);
}
TEST_CASE("raw weights, some tokens without an expert") {
  check_gradients(support::small_layer(routing::threshold_router<double, routing::raw>(support::d, 5, 0.4), 7),
                  everything, 5);
}
TEST_CASE("softmax over the selected logits") {
  check_gradients(
      support::small_layer(routing::top_k_router<double, routing::softmax_over_selected>(support::d, 5, 3), 8),
      everything, 6);
}
