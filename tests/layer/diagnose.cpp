// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/diagnose.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/any_router.hpp>
#include <hmoe/routing/batch_selections/hash_table.hpp>
#include <hmoe/routing/presets.hpp>
#include <hmoe/routing/weightings/equal_weights.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace routing = hmoe::routing;
using routing::linear;
using routing::router;
using routing::top_k;

namespace {
const hmoe::context cpu{hmoe::backends::reference{}};

template <class Router> auto make(Router router) {
  hmoe::moe_layer layer{hmoe::expert_set{hmoe::experts::glu_bank<float, hmoe::experts::silu>(
                            router.d_model(), std::vector<std::size_t>(router.size(), 3))},
                        std::move(router)};
  layer.initialize(hmoe::seed{2}, {.router_stddev = 1});
  return layer;
}
/// Whether exactly these beginnings of sentences come back, in this order.
template <class Layer> void check_of(Layer& layer, const std::vector<std::string>& expected) {
  const auto found = hmoe::diagnose(cpu, layer);
  std::string all;
  for (const auto& sentence : found)
    all += sentence + "\n";
  CAPTURE(all);
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i)
    CHECK(found[i].find(expected[i]) == 0);
}
template <class Layer> void check(Layer layer, const std::vector<std::string>& expected) { check_of(layer, expected); }
} // namespace

TEST_CASE("nothing is wrong with ordinary layers") {
  check(make(router<linear<float>, top_k<>>(8, 6, 2)), {});
  check(make(routing::top_p_router<float>(8, 6, 0.6)), {});
  check(make(router<linear<float>, top_k<>, routing::raw>(8, 6, 1)), {});
  check(make(routing::presets::switch_transformer<float>{8, 6}), {});
  check(make(routing::presets::deepseek_v3<float>{8, 8, {8, {.groups = 2, .kept = 1, .k = 2}}, {.factor = 2.5}}), {});
}

TEST_CASE("renormalized with k = 1, and equal weights, train no router") {
  check(make(router<linear<float>, top_k<>>(8, 6, 1)), {"The router gets no gradient from the layer's output"});
  check(make(router<linear<float>, top_k<>, routing::equal_weights>(8, 6, 2)), {"The router gets no gradient"});
}

TEST_CASE("a layer that was never initialised; a router of zeros") {
  hmoe::moe_layer fresh{
      hmoe::expert_set{hmoe::experts::glu_bank<float, hmoe::experts::silu>(8, std::vector<std::size_t>(6, 3))},
      router<linear<float>, top_k<>>(8, 6, 2)};
  check(fresh, {"All 432 weights of the experts are 0, so y is 0: the layer was never initialised.",
                "All 48 weights of the router are 0",
                "All 256 random tokens go to experts 0 and 1, none to any other expert"});
  auto zeros = make(router<linear<float>, top_k<>>(8, 6, 1));
  hmoe::set_zero(zeros.router());
  check(zeros, {"All 48 weights of the router are 0", "All 256 random tokens go to expert 0, none to any other",
                "The router gets no gradient"});
}

TEST_CASE("experts that no token can choose") {
  auto biased = make(router<linear<float, routing::sigmoid>, routing::biased<float, top_k<>>>(8, 6, {6, {2}}));
  biased.router().selection_policy().bias()[3] = -2; // the sigmoid is below 1
  biased.router().selection_policy().bias()[5] = -2;
  check(biased, {"None of 256 random tokens goes to experts 3 and 5"});
  auto gone = make(router<linear<float, routing::softmax, true>, top_k<>>(8, 6, 2));
  gone.router().set_on_non_finite(routing::non_finite::exclude);
  gone.router().score().bias()[0] = -std::numeric_limits<float>::infinity();
  check(gone, {"None of 256 random tokens goes to expert 0:"});
  const router<linear<float>, routing::hash_table> table(8, 4, routing::hash_table({0, 1, 2, 1}, 2));
  check(make(table), {"None of 256 random tokens goes to expert 3"});
  check(make(routing::any_router<float, hmoe::context<hmoe::backends::reference>>(table)),
        {"None of 256 random tokens goes to expert 3"});
}

TEST_CASE("a layer on memory that may only be read is looked at as any other") {
  const hmoe::matrix<float> in(4, 8), out(8, 2);
  const hmoe::experts::ffn_tensors<const float, 2> tensors{{in.view().row_block(0, 2), in.view().row_block(2, 2)},
                                                           out.view()};
  hmoe::moe_layer layer{hmoe::expert_set{hmoe::experts::glu_bank<float, hmoe::experts::silu>{
                            hmoe::experts::ffn_weights<float, 2>{std::vector{tensors}}}},
                        routing::top_k_router<float>(8, 1, 1)};
  layer.router().initialize(hmoe::seed{1}, 0, {.router_stddev = 1});
  check_of(layer, {"All 48 weights of the experts are 0", "The router gets no gradient"});
}
