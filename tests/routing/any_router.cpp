// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/dry_context.hpp>
#include <hmoe/execution/observed.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/any_router.hpp>
#include <hmoe/routing/batch_selections/expert_choice.hpp>
#include <hmoe/routing/batch_selections/hash_table.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/scores/gate_residual.hpp>
#include <hmoe/routing/scores/no_score.hpp>
#include <hmoe/routing/scores/noisy.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/shared/always_on.hpp>
#include <hmoe/routing/shared/sigmoid_gated.hpp>
#include <hmoe/routing/weightings/equal_weights.hpp>
#include <hmoe/routing/weightings/on_input_side.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/sigmoid_of_logit.hpp>

#include "support/random_matrix.hpp"
#include "support/same_bits.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace any_router_checks {
namespace {

namespace routing = hmoe::routing;
using hmoe::matrix;
using hmoe::matrix_view;
using routing::linear;
using routing::router;

constexpr std::size_t d = 5, experts = 6, tokens = 9, previous_experts = 3;
using context_type = hmoe::context<hmoe::backends::reference>;
using any = routing::any_router<double, context_type>;

using noisy_router =
    router<routing::noisy<linear<double>>, routing::top_k<>, routing::renormalized, routing::sigmoid_gated<double>>;
using biased_router = router<linear<double>, routing::biased<double, routing::top_k<>>,
                             routing::on_input_side<routing::sigmoid_of_logit>, routing::always_on>;
using choosing_router = router<linear<double>, routing::expert_choice, routing::raw>;

/// Sends all tokens to the first expert, by a weight that is its parameter. It has no optional members.
class first_expert {
public:
  using value_type = double;
  first_expert() : weight_(1, 1) {}
  [[nodiscard]] static std::size_t d_model() { return d; }
  [[nodiscard]] static std::size_t size() { return experts; }
  [[nodiscard]] static std::size_t routed() { return experts; }
  [[nodiscard]] static std::size_t max_selected() { return 1; }
  [[nodiscard]] static std::size_t saved_per_token() { return 0; }
  [[nodiscard]] static bool weights_on_input() { return false; }
  template <class Context>
  void forward(const Context&, matrix_view<const double> x, hmoe::router_trace<double>& trace,
               hmoe::assignment<double>& assigned) const {
    assigned.resize_tokens(x.rows());
    for (std::size_t t = 0; t < x.rows(); ++t) {
      assigned.offsets()[t + 1] = static_cast<hmoe::index_t>(t + 1);
      std::ranges::fill(trace.logits().row(t), 0.5);
      std::ranges::fill(trace.probabilities().row(t), 0.25);
    }
    assigned.resize_entries();
    for (std::size_t t = 0; t < x.rows(); ++t) {
      assigned.experts()[t] = 0;
      assigned.weights()[t] = weight_(0, 0) * x(t, 0);
      ++trace.tokens_per_expert()[0];
    }
  }
  template <class Context>
  void backward(const Context&, matrix_view<const double> x, const hmoe::router_trace<double>&,
                const hmoe::assignment<double>&, hmoe::vector_view<const double> d_weights, matrix_view<double> dx,
                first_expert& gradients) const {
    for (std::size_t t = 0; t < x.rows(); ++t) {
      dx(t, 0) += d_weights[t] * weight_(0, 0);
      gradients.weight_(0, 0) += d_weights[t] * x(t, 0);
    }
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) { visit(hmoe::parameter_info{"w"}, weight_.view()); }
  void initialize(hmoe::seed, std::uint64_t stream, const hmoe::initialization& options) {
    weight_(0, 0) = static_cast<double>(stream) + options.router_stddev;
  }

private:
  matrix<double> weight_;
};

/// All that two passes leave behind, and the bytes that they take.
struct outcome {
  std::vector<double> values;
  std::vector<std::size_t> counts;
  bool operator==(const outcome& other) const {
    return support::same_bits(values, other.values) && counts == other.counts;
  }
};

template <class Router> outcome run(Router router, bool padding) {
  support::random_source random(31);
  router.initialize(hmoe::seed{5}, 40, {.router_stddev = 1});
  const auto x = support::random_matrix<double>(random, tokens, d);
  std::vector<std::uint8_t> valid(tokens, 1);
  valid[2] = 0;
  std::vector<hmoe::index_t> ids;
  for (std::size_t t = 0; t < tokens; ++t)
    ids.push_back(static_cast<hmoe::index_t>(t % 3));
  hmoe::router_trace<double> previous, trace;
  previous.resize(tokens, previous_experts, 0, true);
  support::fill(random, previous.logits());
  trace.resize(tokens, router.routed(), router.saved_per_token(), true);
  trace.set_inputs({.noise = hmoe::noise_source{hmoe::seed{6}, 2}, .token_ids = ids, .previous = &previous});
  if (padding) {
    auto inputs = trace.inputs();
    inputs.valid = valid;
    trace.set_inputs(inputs);
  }
  hmoe::workspace memory;
  const context_type ctx{hmoe::backends::reference{}, hmoe::executors::serial{}, memory};
  hmoe::assignment<double> assigned;
  outcome result;
  const auto keep = [&](auto view) { result.values.insert(result.values.end(), view.begin(), view.end()); };
  const auto keep_rows = [&](matrix_view<const double> rows) {
    keep(hmoe::vector_view<const double>(rows.data(), rows.size()));
  };
  const auto count = [&](auto... values) { (result.counts.push_back(values), ...); };

  {
    const hmoe::workspace::scope scope(memory);
    router.forward(ctx, x.view(), trace, assigned);
  }
  count(memory.peak());
  support::fill(random, trace.d_logits());
  support::fill(random, trace.d_probabilities());
  const auto d_weights = support::random_matrix<double>(random, 1, assigned.size());
  auto dx = support::random_matrix<double>(random, tokens, d);
  Router gradients = router;
  hmoe::set_zero(gradients);
  {
    const hmoe::workspace::scope scope(memory);
    router.backward(ctx, x.view(), std::as_const(trace), std::as_const(assigned), d_weights.row(0), dx.view(),
                    gradients);
  }
  count(memory.peak());
  for (const bool forward : {true, false}) {
    const hmoe::dry_context dry(ctx);
    const hmoe::workspace::scope scope(dry.workspace());
    if constexpr (requires { router.lay_out_forward(dry, tokens, padding); }) {
      if (forward)
        router.lay_out_forward(dry, tokens, padding);
      else
        router.lay_out_backward(dry, tokens, padding);
    }
    count(dry.workspace().peak());
  }
  keep_rows(trace.logits());
  keep_rows(trace.probabilities());
  keep_rows(trace.score_saved());
  keep(assigned.weights());
  keep_rows(dx.view());
  keep_rows(previous.d_logits());
  gradients.visit_parameters([&](const hmoe::parameter_info& info, matrix_view<double> view) {
    keep_rows(view);
    count(info.full_name().size(), info.decay ? 1U : 0U, info.trained ? 1U : 0U, view.rows(), view.cols());
  });
  for (const auto list : {assigned.offsets(), assigned.experts(), trace.tokens_per_expert()})
    result.counts.insert(result.counts.end(), list.begin(), list.end());
  count(router.d_model(), router.size(), router.routed(), router.max_selected(), router.saved_per_token(),
        router.weights_on_input() ? 1U : 0U);
  return result;
}

template <class Router> void check_same(const Router& held) {
  CAPTURE(std::string(hmoe::detail::type_name<Router>()));
  const bool takes_padding = !std::same_as<Router, first_expert>;
  for (const bool padding : {false, takes_padding}) {
    const outcome plain = run(held, padding);
    CHECK(plain.values.size() > 100);
    CHECK((run(any(held), padding) == plain));
  }
}

const noisy_router noisy(d, experts, routing::top_k<>{2}, {}, routing::sigmoid_gated<double>(d, 2));
const biased_router biased(linear<double>(d, experts), {experts, {2}}, {}, routing::always_on{1});
const choosing_router choosing(d, experts, routing::expert_choice{2});

double first_value(const any& holder) {
  double result = 0;
  holder.visit_parameters([&](const hmoe::parameter_info&, matrix_view<const double> view) { result = view(0, 0); });
  return result;
}

/// The text of the hmoe::error that f throws.
template <class F> std::string error_of(const F& f) {
  try {
    f();
  } catch (const hmoe::error& e) {
    return e.what();
  }
  return "";
}

TEST_CASE("any_router is the router that it holds: bits, trace, gradients, bytes") {
  static_assert(hmoe::router_policy<any>);
  static_assert(!std::constructible_from<any, linear<double>>); // a score, no router
  check_same(noisy);
  check_same(biased);
  check_same(choosing);
  check_same(router<routing::gate_residual<linear<double>>, routing::top_p>(
      routing::gate_residual(linear<double>(d, experts), previous_experts), routing::top_p{0.6}));
  check_same(router<routing::no_score<double>, routing::hash_table, routing::equal_weights>(
      d, experts, routing::hash_table({0, 2, 1, 0, 4, 3}, 2)));
  check_same(first_expert());
}

TEST_CASE("a layer takes one router after the other, with the bits, the cost and the bytes of the layer that has it") {
  using bank = hmoe::experts::glu_bank<double, hmoe::experts::silu>;
  const auto check = [](const auto& held) {
    support::random_source random(32);
    const auto x = support::random_matrix<double>(random, tokens, d),
               dy = support::random_matrix<double>(random, tokens, d);
    std::vector<std::size_t> widths;
    for (std::size_t e = 0; e < held.size(); ++e)
      widths.push_back(1 + e);
    const context_type ctx;
    const auto trained = [&](const auto& layer_router) {
      hmoe::moe_layer layer{hmoe::expert_set{bank(d, widths)}, layer_router};
      layer.initialize(hmoe::seed{3}, {.router_stddev = 1});
      auto tape = layer.make_tape(tokens);
      auto gradients = layer.make_gradients();
      matrix<double> y(tokens, d), dx(tokens, d);
      layer.forward(ctx, x, y, tape);
      layer.backward(ctx, tape, dy, dx, gradients);
      outcome result;
      const auto keep = [&](matrix_view<const double> view) {
        result.values.insert(result.values.end(), view.data(), view.data() + view.size());
      };
      keep(y);
      keep(dx);
      gradients.visit_parameters([&](const hmoe::parameter_info&, auto view) { keep(view); });
      const auto cost = layer.cost();
      result.counts = {layer.workspace_bytes(ctx, 1), layer.workspace_bytes(ctx, 70, true), cost.router_bytes,
                       static_cast<std::size_t>(cost.activated(tape.assignment()).flops)};
      return result;
    };
    CHECK((trained(any(held)) == trained(held)));
  };
  check(noisy);
  check(choosing);
}

TEST_CASE("copies are deep, moves are not copies, and only the held kind is found") {
  any first{first_expert()};
  first.initialize({}, 5, {.router_stddev = 0});
  any second = first;
  second.initialize({}, 6, {.router_stddev = 0});
  CHECK(first_value(first) == 5);
  CHECK(first_value(second) == 6);
  const auto* held = second.get_if<first_expert>();
  REQUIRE(held != nullptr);
  const any third = std::move(second);
  CHECK(third.get_if<first_expert>() == held);
  CHECK(third.get_if<noisy_router>() == nullptr);
  second = first; // a moved-from object takes a new value
  CHECK(first_value(second) == 5);
  first = noisy; // and any object another kind
  CHECK(first.get_if<first_expert>() == nullptr);
  CHECK(first.size() == experts + 2);

  any moved{biased};
  moved.get_if<biased_router>()->selection_policy().bias()[3] = 7;
  const any copy = moved;
  CHECK(copy.get_if<biased_router>()->selection_policy().bias()[3] == 7);
}

TEST_CASE("gradients of another kind or size are refused before a layer writes anything") {
  using bank = hmoe::experts::glu_bank<double, hmoe::experts::silu>;
  const context_type ctx;
  hmoe::moe_layer layer{hmoe::expert_set{bank(d, std::vector<std::size_t>(experts, 2))}, any(choosing)};
  layer.initialize(hmoe::seed{1});
  support::random_source random(33);
  const auto x = support::random_matrix<double>(random, tokens, d);
  matrix<double> y(tokens, d), dx(tokens, d);
  auto tape = layer.make_tape(tokens);
  auto gradients = layer.make_gradients();
  layer.forward(ctx, x, y, tape);
  const auto refused = [&](any other) {
    gradients.router = std::move(other);
    return error_of([&] { layer.backward(ctx, tape, x, dx, gradients); });
  };
  const std::string kind = refused(first_expert());
  CHECK(kind.find("hold a router of another kind") != std::string::npos);
  CHECK(kind.find("expert_choice") != std::string::npos);
  const std::string size = refused(choosing_router(d, experts + 1, routing::expert_choice{2}));
  CHECK(size.find("are of a router for 7 experts and d_model 5, this one is for 6 and 5") != std::string::npos);
  CHECK(support::same_bits(dx, matrix<double>(tokens, d)));
  gradients.experts.visit_parameters([](const hmoe::parameter_info&, auto view) {
    for (std::size_t r = 0; r < view.rows(); ++r)
      CHECK(std::ranges::all_of(view.row(r), [](double g) { return g == 0; }));
  });
  CHECK(refused(choosing).empty());
}

/// The stages that begin, one after the other.
struct listed_stages {
  std::shared_ptr<std::vector<int>> all = std::make_shared<std::vector<int>>();
  void begin(const hmoe::probes::event& e) noexcept {
    all->push_back(2 * static_cast<int>(e.stage) + static_cast<int>(e.direction));
  }
  static void end(const hmoe::probes::event&) noexcept {}
};

TEST_CASE("a probe sees the stages of the held router, from a layer and without one") {
  using observed = hmoe::context<hmoe::backends::reference, hmoe::executors::serial, listed_stages>;
  const listed_stages list;
  const observed ctx{hmoe::backends::reference{}, hmoe::executors::serial{}, list};
  const routing::top_k_router<double> held(d, experts, 2);
  const routing::any_router<double, observed> holder(held);
  const auto stages_of = [&](const auto& subject, const auto& in) {
    const matrix<double> x(tokens, d);
    matrix<double> dx(tokens, d);
    hmoe::router_trace<double> trace;
    trace.resize(tokens, experts, 0, true);
    hmoe::assignment<double> assigned;
    auto gradients = subject;
    const hmoe::workspace::scope scope(ctx.workspace());
    list.all->clear();
    subject.forward(in(hmoe::probes::direction::forward), x.view(), trace, assigned);
    const std::vector<double> d_weights(assigned.size());
    subject.backward(in(hmoe::probes::direction::backward), x.view(), std::as_const(trace), std::as_const(assigned),
                     hmoe::vector_view<const double>(d_weights), dx.view(), gradients);
    return *list.all;
  };
  const auto placed = [&](hmoe::probes::direction direction) {
    return hmoe::probes::placed(ctx, hmoe::probes::part_of{hmoe::probes::stage::route, direction});
  };
  const auto expected = stages_of(held, placed);
  CHECK(expected.size() >= 4);
  CHECK(stages_of(holder, placed) == expected);
  CHECK(stages_of(holder, [&](hmoe::probes::direction) -> const observed& { return ctx; }) == expected);
}

} // namespace
} // namespace any_router_checks
