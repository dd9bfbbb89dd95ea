// SPDX-License-Identifier: MIT
#include <hmoe/experts/identity.hpp>
#include <hmoe/layer/any_layer.hpp>
#include <hmoe/routing/router.hpp>

#include "layer/small_layer.hpp"
#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

namespace {
using any_small_layer = hmoe::any_layer<std::remove_const_t<decltype(support::cpu)>, double>;
using router = hmoe::routing::top_k_router<double>;
} // namespace

TEST_CASE("a layer of any kind does what the layer itself does, bit for bit") {
  const auto layer = support::small_layer(router{support::d, 5, 2});
  const any_small_layer any{layer};
  CHECK(any.d_model() == support::d);
  CHECK(any.size() == 5);
  CHECK(any.max_selected() == 2);
  CHECK(any.trainable());
  CHECK_FALSE(any.reads_router_x());
  CHECK(any.router_d_model() == support::d);
  CHECK(std::ranges::equal(any.widths(), layer.widths()));
  CHECK(any.cost().parameters() == layer.cost().parameters());
  CHECK(any.workspace_bytes(support::cpu, 7) == layer.workspace_bytes(support::cpu, 7));

  support::random_source random(3);
  const auto x = support::random_matrix<double>(random, 7, support::d);
  const auto dy = support::random_matrix<double>(random, 7, support::d);
  support::step<decltype(layer)> of_layer(layer, x, dy);
  support::step<any_small_layer> of_any(any, x, dy);
  CHECK(support::largest_difference(of_any.y.view(), of_layer.y.view()) == 0);
  CHECK(support::largest_difference(of_any.dx.view(), of_layer.dx.view()) == 0);
  CHECK(of_any.all_gradients() == of_layer.all_gradients());
  CHECK(std::ranges::equal(std::as_const(of_any.tape).assignment().experts(),
                           std::as_const(of_layer.tape).assignment().experts()));
  CHECK(any.routing(of_any.tape).widths.size() == 5);
  hmoe::matrix<double> y(7, support::d);
  any.forward(support::cpu, x, y);
  CHECK(support::largest_difference(y.view(), of_layer.y.view()) == 0);
}

TEST_CASE("copies of layers and gradients are deep; parameters come with their gradients") {
  any_small_layer first{support::small_layer(router{support::d, 5, 2})};
  any_small_layer second = first;
  auto gradients = first.make_gradients();
  auto copied = gradients;
  std::vector<hmoe::parameter<double>> parameters, others;
  first.append_parameters(gradients, parameters, "l.");
  second.append_parameters(copied, others);
  REQUIRE(parameters.size() == others.size());
  CHECK(parameters[0].name == "l." + others[0].name);
  parameters[0].value[0] += 1;
  parameters[0].gradient[0] = 3;
  CHECK(others[0].value[0] == parameters[0].value[0] - 1);
  CHECK(others[0].gradient[0] == 0);
  second = first;
  copied = gradients;
  others.clear();
  second.append_parameters(copied, others);
  CHECK(others[0].value[0] == parameters[0].value[0]);
  CHECK(others[0].gradient[0] == 3);
  gradients.set_zero();
  CHECK(parameters[0].gradient[0] == 0);
}

TEST_CASE("gradients of another kind of layer are refused") {
  const any_small_layer layer{support::small_layer(router{support::d, 5, 2})};
  const any_small_layer other{
      hmoe::moe_layer{hmoe::expert_set{hmoe::experts::identity_bank<double>(support::d, 5)}, router{support::d, 5, 2}}};
  hmoe::matrix<double> x(2, support::d), y(2, support::d), dx(2, support::d);
  auto tape = layer.make_tape(2);
  layer.forward(support::cpu, x, y, tape);
  auto gradients = other.make_gradients();
  CHECK(support::error_of([&] { layer.backward(support::cpu, tape, y, dx, gradients); }) ==
        "hmoe: backward: the gradients are of another kind of layer");
}

TEST_CASE("const layers and gradients show their tensors to read") {
  const any_small_layer layer{support::small_layer(router{support::d, 5, 2})};
  const auto gradients = layer.make_gradients();
  const auto values_of = [](const auto& shown) {
    std::size_t values = 0;
    shown.visit_parameters(
        [&](const hmoe::parameter_info&, hmoe::matrix_view<const double> view) { values += view.size(); });
    return values;
  };
  CHECK(values_of(layer) == layer.cost().parameters());
  CHECK(values_of(gradients) == layer.cost().parameters());
}

namespace {
std::size_t values_seen = 0;
void see(const hmoe::parameter_info&, hmoe::matrix_view<double> view) { values_seen += view.size(); }
} // namespace

TEST_CASE("a visitor may be a function") {
  any_small_layer layer{support::small_layer(router{support::d, 5, 2})};
  values_seen = 0;
  layer.visit_parameters(see);
  CHECK(values_seen == layer.cost().parameters());
}
