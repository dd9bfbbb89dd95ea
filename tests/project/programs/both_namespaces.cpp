// SPDX-License-Identifier: MIT
// Names of the library are found beside those of the standard library and of its own namespaces.
// flags: -Wall -Wextra -Werror
// compile only
#include <hmoe/hmoe.hpp>

#include <algorithm>
#include <complex>
#include <execution>
#include <functional>
#include <iostream>
#include <map>
#include <random>
#include <thread>

using namespace std;
using namespace hmoe;

namespace with_routing {
using namespace hmoe::routing;
top_k_router<float> make() { return top_k_router<float>{4, 2, 1}; }
top_p choice(double p) { return top_p{p}; }
template <router_policy R> size_t experts_of(const R& router) { return router.size(); }
auto by_id() { return router<no_score<float>, random_hash, equal_weights>(4, 3, random_hash{2}); }
size_t three() { return experts_of(by_id()); }
} // namespace with_routing

namespace with_experts {
using namespace hmoe::experts;
glu_bank<float, silu> make() { return glu_bank<float, silu>(4, {1, 2}); }
} // namespace with_experts

namespace with_others {
using namespace hmoe::losses;
using namespace hmoe::dispatch;
using namespace hmoe::backends;
using namespace hmoe::executors;
using namespace hmoe::training;
auto make() { return objective{load_balance{}, router_entropy{0.1}}; }
context<reference, serial> here() { return context{reference{}, serial{}}; }
} // namespace with_others

template <float_or_double T> T twice(T value) { return value + value; }

void run(matrix_view<const float> x, matrix_view<float> y) {
  moe_layer layer{expert_set{with_experts::make()}, with_routing::make(), dispatch::sorted{}};
  layer.initialize(seed{1});
  matrix<float> dx(x.rows(), x.cols());
  auto saved = layer.make_tape(x.rows());
  auto gradients = layer.make_gradients();
  const auto ctx = with_others::here();
  layer.forward(ctx, x, y, saved);
  (void)with_others::make().evaluate(layer, saved);
  layer.backward(ctx, saved, y, dx, gradients);
  vector<parameter<float>> list;
  layer.append_parameters(gradients, list);
  buffer<float> values(3);
  fill_normal(values.view(), twice(0.5), seed{2}, with_routing::three());
}
