// SPDX-License-Identifier: MIT
// routing_inputs::most_experts: k of top-k, and the most experts of any selection, as an argument of a pass.
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/any_router.hpp>
#include <hmoe/routing/batch_selections/expert_choice.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/shared/always_on.hpp>
#include <hmoe/routing/weightings/raw.hpp>

#include "layer/small_layer.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

namespace {
namespace r = hmoe::routing;
using top_k_and_shared = r::router<r::linear<double>, r::top_k<>, r::renormalized, r::always_on>;
/// A router of a user's own.
struct unlimited_router : r::top_k_router<double> {
  using r::top_k_router<double>::top_k_router;
  static bool limits_choices() { return false; }
};
/// y, dx, all gradients and the assignment of a step, and how many routed experts tokens have at most.
template <class Router> struct limited_step {
  std::vector<double> numbers;
  std::vector<hmoe::index_t> experts;
  std::size_t most = 0;

  limited_step(Router router, std::size_t limit) {
    auto layer = hmoe::moe_layer{hmoe::expert_set{support::glu(support::d, {1, 4, 2, 3, 5})}, std::move(router)};
    support::randomize(layer, 3);
    support::random_source random(4);
    const auto x = support::random_matrix<double>(random, 20, support::d);
    const auto dy = support::random_matrix<double>(random, 20, support::d);
    hmoe::matrix<double> y(20, support::d), dx(20, support::d);
    auto tape = layer.make_tape(20);
    auto gradients = layer.make_gradients();
    hmoe::routing_inputs<double> inputs;
    inputs.most_experts = limit;
    layer.forward(support::cpu, x, y, tape, inputs);
    layer.backward(support::cpu, tape, dy, dx, gradients);
    numbers.assign(y.data(), y.data() + y.size());
    numbers.insert(numbers.end(), dx.data(), dx.data() + dx.size());
    gradients.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<double> view) {
      numbers.insert(numbers.end(), view.data(), view.data() + view.size());
    });
    const auto& assigned = std::as_const(tape).assignment();
    experts.assign(assigned.experts().begin(), assigned.experts().end());
    for (std::size_t t = 0; t < 20; ++t) {
      std::size_t routed = 0;
      for (const hmoe::index_t e : assigned.experts_of(t))
        routed += e < layer.router().routed() ? 1 : 0;
      most = std::max(most, routed);
    }
  }
};
} // namespace

TEST_CASE("a pass with at most k experts is that of a router with this k, shared experts beside them, to the bit") {
  using one = r::top_k_router<double>;
  for (const std::size_t k : {1U, 2U, 3U}) {
    CAPTURE(k);
    const limited_step<one> limited(one(support::d, 5, 4), k), own(one(support::d, 5, k), 0);
    CHECK(limited.experts == own.experts);
    CHECK(support::same_bits(limited.numbers, own.numbers));
    const auto with_shared = [](std::size_t experts) {
      return top_k_and_shared(support::d, 4, r::top_k<>(experts), {}, r::always_on(1));
    };
    const limited_step<top_k_and_shared> beside(with_shared(4), k), own_beside(with_shared(k), 0);
    CHECK(beside.experts == own_beside.experts);
    CHECK(support::same_bits(beside.numbers, own_beside.numbers));
  }
  CHECK(limited_step<one>(one(support::d, 5, 2), 4).numbers == limited_step<one>(one(support::d, 5, 2), 0).numbers);
}

TEST_CASE("selections of any number of experts keep the most probable ones, also behind any_router") {
  using top_p = r::top_p_router<double>;
  const limited_step<top_p> all(top_p(support::d, 5, 0.99), 0), some(top_p(support::d, 5, 0.99), 2);
  CHECK(all.most > 2);
  CHECK(some.most == 2);
  using context = std::remove_cvref_t<decltype(support::cpu)>;
  using any = r::any_router<double, context>;
  CHECK(limited_step<any>(any(top_p(support::d, 5, 0.99)), 2).numbers == some.numbers);
  using by_experts = r::router<r::linear<double>, r::expert_choice, r::raw>;
  CHECK(limited_step<by_experts>(by_experts(support::d, 5, r::expert_choice{2.0}), 1).most == 1);
}

TEST_CASE("a router that does not look at most_experts is refused where it is given") {
  const hmoe::moe_layer layer{hmoe::expert_set{support::glu(support::d, {2, 3})}, unlimited_router(support::d, 2, 2)};
  const hmoe::matrix<double> x(3, support::d);
  hmoe::matrix<double> y(3, support::d);
  hmoe::routing_inputs<double> inputs;
  layer.forward(support::cpu, x, y, inputs);
  inputs.most_experts = 1;
  CHECK(support::error_of([&] { layer.forward(support::cpu, x, y, inputs); }) ==
        "hmoe: routing_inputs::most_experts is 1, but the router of this layer does not look at it: leave it out, or "
        "take "
        "a routing::router");
}
