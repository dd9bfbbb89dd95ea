// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/reference.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>

#include "support/finite_differences.hpp"
#include "support/random_matrix.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace support {

struct router_gradient_options {
  std::size_t tokens = 7;
  double parameter_scale = 1;
  double floor = 1e-2; ///< derivatives smaller than this are compared on this scale
  std::uint64_t seed = 1;
};

struct router_gradient_result {
  double worst = 0;       ///< the largest relative error, infinite when a step changed the routing
  std::string where;      ///< "dx" or the parameter it was found in
  double largest = 0;     ///< the largest gradient of a router's parameter: 0 would mean that nothing was checked
  std::size_t routed = 0; ///< entries of the assignment
};

/// All gradients of a layer of unequal experts under `router`, against finite differences of
///   L = Σ C∘y + Σ A∘logits + Σ B∘probabilities,
/// whose last two terms are what auxiliary losses add to the trace. Parameters, x, A, B, C are random.
template <class Router>
[[nodiscard]] router_gradient_result check_router_gradients(Router router, hmoe::routing_inputs<double> inputs = {},
                                                            router_gradient_options options = {}) {
  const std::size_t d_model = router.d_model(), routed = router.routed();
  std::vector<std::size_t> widths;
  for (std::size_t e = 0; e < router.size(); ++e)
    widths.push_back(1 + e % 3);
  using bank = hmoe::experts::glu_bank<double, hmoe::experts::silu>;
  hmoe::moe_layer layer{hmoe::expert_set{bank(d_model, widths)}, std::move(router)};
  random_source random(options.seed);
  layer.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<double> view) {
    fill(random, view, options.parameter_scale);
  });
  auto x = random_matrix<double>(random, options.tokens, d_model);
  const auto a = random_matrix<double>(random, options.tokens, routed),
             b = random_matrix<double>(random, options.tokens, routed),
             c = random_matrix<double>(random, options.tokens, d_model);
  hmoe::matrix<double> y(options.tokens, d_model), dx(options.tokens, d_model);
  const hmoe::context ctx{hmoe::backends::reference{}};
  auto tape = layer.make_tape(options.tokens);
  auto gradients = layer.make_gradients();

  layer.forward(ctx, x, y, tape, inputs);
  const auto sum_of = [](const auto& weights, const auto& values) {
    double sum = 0;
    for (std::size_t i = 0; i < weights.size(); ++i)
      sum += weights.data()[i] * values.data()[i];
    return sum;
  };
  std::copy_n(a.data(), a.size(), tape.trace().d_logits().data());
  std::copy_n(b.data(), b.size(), tape.trace().d_probabilities().data());
  layer.backward(ctx, tape, c.view(), dx, gradients);

  const auto ids = tape.assignment().experts();
  const std::vector<hmoe::index_t> chosen(ids.begin(), ids.end());
  auto probe = layer.make_tape(options.tokens);
  const auto loss = [&] {
    layer.forward(ctx, x, y, probe, inputs);
    if (!std::ranges::equal(chosen, probe.assignment().experts()))
      return std::numeric_limits<double>::quiet_NaN(); // at a tie: take another seed
    return sum_of(c, y) + sum_of(a, probe.trace().logits()) + sum_of(b, probe.trace().probabilities());
  };
  router_gradient_result result;
  result.routed = chosen.size();
  const auto compare = [&](const std::string& name, std::span<double> values, std::span<const double> analytic) {
    const double error = gradient_error(values, analytic, loss, {.floor = options.floor});
    if (!(error <= result.worst)) {
      result.worst = error;
      result.where = name;
    }
  };
  compare("dx", {x.data(), x.size()}, {dx.data(), dx.size()});
  std::vector<hmoe::parameter<double>> list;
  layer.append_parameters(gradients, list);
  for (const auto& p : list) {
    compare(p.name, p.value, p.gradient);
    if (p.name.starts_with("router."))
      for (const double g : p.gradient)
        result.largest = std::max(result.largest, std::abs(g));
  }
  return result;
}

} // namespace support

/// For a router whose parameters have gradients: routing::router's arguments as of check_router_gradients.
#define CHECK_ROUTER_GRADIENTS(...)                                                                                    \
  do {                                                                                                                 \
    const auto found = support::check_router_gradients(__VA_ARGS__);                                                   \
    INFO("worst in ", found.where, ", entries ", found.routed);                                                        \
    CHECK(found.worst < 1e-6);                                                                                         \
    CHECK(found.largest > 1e-2);                                                                                       \
    CHECK(found.routed > 0);                                                                                           \
  } while (false)
