// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/reference.hpp>
#include <hmoe/core/assignment.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/dry_context.hpp>
#include <hmoe/routing/any_router.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/testing/guarded_routing.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/testing/report.hpp>
#include <hmoe/testing/selection_laws.hpp>
#include <hmoe/testing/weighting_laws.hpp>

#include <algorithm>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::testing {

/// How a router is exercised, and what its tokens come with (routing_inputs).
struct router_options {
  std::size_t tokens = 6;
  bool token_by_token = true;          ///< off for batch-wide selections, where tokens compete
  bool any_batch_size = true;          ///< off for one that routes a recorded batch: `tokens` must be its size
  std::optional<noise_source> noise{}; ///< for noisy scores, which add none without it
  std::size_t vocabulary = 0;          ///< of the tokens' ids, for hash selections; 0: no ids
  std::size_t previous_experts = 0;    ///< of the layer before, for gates with residual; 0: there is none
  double tolerance = 0;                ///< of gradients; 0 means gradient_tolerance<value_type>
};

namespace detail {

/// What the tokens of a batch come with: the same for a token whatever the batch behind it.
template <class T> struct token_company {
  router_trace<T> previous;
  std::vector<index_t> ids;
  routing_inputs<T> inputs;

  token_company(const router_options& options, std::size_t tokens) {
    const std::vector<T> logits = random_values<T>(tokens * options.previous_experts, 14);
    previous.resize(tokens, options.previous_experts, 0, true);
    std::copy(logits.begin(), logits.end(), previous.logits().data());
    for (std::size_t t = 0; t < tokens && options.vocabulary != 0; ++t)
      ids.push_back(static_cast<index_t>((7 * t + 3) % options.vocabulary));
    inputs = {.noise = options.noise, .token_ids = ids};
    if (options.previous_experts != 0)
      inputs.previous = &previous;
  }
  token_company(const token_company&) = delete;
  token_company& operator=(const token_company&) = delete;
  ~token_company() = default;
};

/// The laws see any router as this, so that they are compiled once for all.
template <class T> using held_router = routing::any_router<T, context<backends::reference>>;

/// A router's forward pass over a batch.
template <class T> struct routed {
  guarded_routing<T> memory;
  router_trace<T>& trace = memory.trace();
  assignment<T>& assigned = memory.assigned();
  bool intact = false;                  ///< whether forward wrote only where it may
  std::size_t taken = 0, announced = 0; ///< bytes of workspace

  routed(const held_router<T>& router, const std::vector<T>& x, std::size_t tokens, const routing_inputs<T>& inputs)
      : memory(tokens, router.routed(), router.saved_per_token(), router.size()) {
    workspace scratch;
    const context ctx{backends::reference{}, executors::serial{}, scratch};
    const workspace::scope scope(scratch);
    const guarded_matrix<T> in(tokens, router.d_model(), x);
    trace.set_inputs(inputs);
    router.forward(ctx, in.view(), trace, assigned);
    const dry_context dry(ctx);
    const workspace::scope dry_scope(dry.workspace());
    router.lay_out_forward(dry, tokens, true);
    taken = scratch.peak();
    announced = dry.workspace().peak();
    intact = memory.intact() && in.margins_intact() && same_bits(in.values(), x);
  }
  [[nodiscard]] std::vector<T> weights() const { return {assigned.weights().begin(), assigned.weights().end()}; }
  [[nodiscard]] std::vector<index_t> experts() const { return {assigned.experts().begin(), assigned.experts().end()}; }
  [[nodiscard]] std::vector<T> scores() const {
    std::vector<T> all(trace.logits().data(), trace.logits().data() + trace.logits().size());
    all.insert(all.end(), trace.probabilities().data(), trace.probabilities().data() + trace.probabilities().size());
    return all;
  }
};

template <class T>
void check_assignment(const held_router<T>& router, const routed<T>& run, std::size_t tokens, report& found) {
  found.expect(run.intact, "writes only into the trace and the assignment", "x, or memory beside those, changed with ",
               tokens, " tokens");
  if (!found.expect(run.assigned.tokens() == tokens, "assigns every token of the batch", "the assignment has ",
                    run.assigned.tokens(), " tokens, the batch ", tokens))
    return;
  found.expect_no_throw("the assignment is well formed", [&] { run.assigned.validate(router.size()); });
  std::vector<std::size_t> counted(router.size());
  for (const index_t e : run.experts())
    if (e < counted.size())
      ++counted[e];
  for (std::size_t t = 0; t < tokens; ++t)
    found.expect(run.assigned.experts_of(t).size() <= router.max_selected(), "chooses at most max_selected experts",
                 "token ", t, " has ", run.assigned.experts_of(t).size(), ", max_selected() is ",
                 router.max_selected());
  for (std::size_t e = 0; e < router.routed(); ++e)
    found.expect(counted[e] == run.trace.tokens_per_expert()[e], "tokens_per_expert counts the assignment", "expert ",
                 e, " has ", counted[e], " tokens, the trace says ", run.trace.tokens_per_expert()[e]);
  found.expect(all_finite(run.weights()) && all_finite(run.scores()), "logits, probabilities and weights are written",
               "some of them are not finite");
}

/// Writes the visited tensors of `from` over those of `to`.
template <class Module> void copy_parameters(Module& from, Module& to) {
  using T = typename Module::value_type;
  std::vector<matrix_view<T>> values;
  from.visit_parameters([&](const parameter_info&, matrix_view<T> view) { values.push_back(view); });
  std::size_t next = 0;
  to.visit_parameters([&](const parameter_info&, matrix_view<T> view) {
    std::copy_n(values.at(next).data(), view.size(), view.data());
    ++next;
  });
}

template <class T> void check_held_router(held_router<T> router, const router_options& options, report& found) {
  using R = held_router<T>;
  const double tolerance = options.tolerance > 0 ? options.tolerance : gradient_tolerance<T>;
  const std::size_t d = router.d_model(), experts = router.routed(), tokens = options.tokens;
  std::uint64_t stream = 8000;
  router.visit_parameters([&](const parameter_info&, matrix_view<T> view) {
    fill_normal(vector_view<T>(view.data(), view.size()), 2 / std::sqrt(static_cast<double>(d)), seed{0x686d6f65},
                stream++);
  });
  std::vector<T> x = random_values<T>(tokens * d, 11);
  token_company<T> company(options, tokens), nobody(options, 0);
  const routed<T> run(router, x, tokens, company.inputs);
  check_assignment(router, run, tokens, found);
  found.expect(run.taken <= run.announced, "lay_out_forward announces enough", "for ", tokens, " tokens forward took ",
               run.taken, " bytes, announced are ", run.announced);
  if (options.any_batch_size)
    check_assignment(router, routed<T>(router, {}, 0, nobody.inputs), 0, found);

  for (std::size_t t = 0; t < tokens && options.token_by_token && options.any_batch_size;
       ++t) { // others before it, none behind
    std::vector<T> others = random_values<T>(t * d, 15);
    others.insert(others.end(), x.begin() + static_cast<std::ptrdiff_t>(t * d),
                  x.begin() + static_cast<std::ptrdiff_t>((t + 1) * d));
    token_company<T> shorter(options, t + 1);
    const routed<T> last(router, others, t + 1, shorter.inputs);
    const auto same = [](const auto& a, const auto& b) { return same_bits(a, b); };
    found.expect(same(last.assigned.experts_of(t), run.assigned.experts_of(t)) &&
                     same(last.assigned.weights_of(t), run.assigned.weights_of(t)),
                 "the routing of a token does not depend on its batch", "token ", t,
                 " is routed differently as the last of ", t + 1, " than among ", tokens);
  }
  found.expect(repeatable([&] { return routed<T>(router, x, tokens, company.inputs).scores(); }) &&
                   repeatable([&] { return routed<T>(router, x, tokens, company.inputs).weights(); }),
               "routes the same every time", "the same batch again, or on another thread, gave other numbers");

  // L = Σ c·w + Σ s·(logits, probabilities): gradients by the weights, and in both sinks.
  const std::vector<T> c = random_values<T>(run.weights().size(), 12), s = random_values<T>(run.scores().size(), 13);
  routed<T> with_sinks(router, x, tokens, company.inputs);
  std::copy_n(s.begin(), tokens * experts, with_sinks.trace.d_logits().data());
  std::copy_n(s.begin() + static_cast<std::ptrdiff_t>(tokens * experts), tokens * experts,
              with_sinks.trace.d_probabilities().data());
  const auto loss = [&] {
    const routed<T> moved(router, x, tokens, company.inputs);
    return moved.experts() == run.experts() ? inner_product(moved.weights(), c) + inner_product(moved.scores(), s)
                                            : std::numeric_limits<double>::quiet_NaN();
  };
  R gradients = router;
  set_zero(gradients);
  guarded_matrix<T> dx(tokens, d);
  dx.fill(T(0));
  const guarded_matrix<T> in(tokens, d, x);
  const auto backward = [&] {
    workspace scratch;
    const context ctx{backends::reference{}, executors::serial{}, scratch};
    const workspace::scope scope(scratch);
    router.backward(ctx, in.view(), std::as_const(with_sinks.trace), std::as_const(with_sinks.assigned),
                    vector_view<const T>(c), dx.view(), gradients);
    const dry_context dry(ctx);
    const workspace::scope dry_scope(dry.workspace());
    router.lay_out_backward(dry, tokens, true);
    found.expect(scratch.peak() <= dry.workspace().peak(), "lay_out_backward announces enough", "for ", tokens,
                 " tokens backward took ", scratch.peak(), " bytes, announced are ", dry.workspace().peak());
  };
  const auto compare = [&](const auto& analytic, const auto& numeric, const char* law, const std::string& name,
                           std::size_t cols) {
    const double error = relative_error(analytic, numeric);
    if (!(error <= tolerance))
      found.expect(false, law, name, " differs from finite differences ", largest_difference(analytic, numeric, cols),
                   ", which is ", error, " of the largest value, allowed are ", tolerance);
  };
  backward();
  found.expect(dx.margins_intact() && in.margins_intact() && with_sinks.memory.intact(),
               "backward writes only into dx and gradients", "memory beside the [", tokens, " x ", d,
               "] dx, x or the trace changed");
  compare(dx.values(), finite_differences(vector_view<T>(x), loss), "backward's dx is the derivative by x", "dx", d);
  const auto before = company.previous.logits(), d_before = company.previous.d_logits();
  const std::vector<T> d_before_once(d_before.data(), d_before.data() + d_before.size());
  compare(d_before_once, finite_differences(vector_view<T>(before.data(), before.size()), loss),
          "backward gives the previous layer the derivative by its logits", "that", before.cols());
  std::vector<std::pair<std::string, std::vector<T>>> slopes;
  gradients.visit_parameters([&](const parameter_info& info, matrix_view<T> g) {
    slopes.emplace_back(info.full_name(), std::vector<T>(g.data(), g.data() + g.size()));
  });
  std::size_t next = 0;
  router.visit_parameters([&](const parameter_info& info, matrix_view<T> w) {
    if (!info.trained) { // moving it may move the choice
      const std::vector<T>& slope = slopes[next++].second;
      found.expect(std::count(slope.begin(), slope.end(), T(0)) == std::ssize(slope),
                   "what is not trained has no gradient", info.full_name(), " has one");
      return;
    }
    compare(slopes[next++].second, finite_differences(vector_view<T>(w.data(), w.size()), loss),
            "backward's gradients are the derivatives by the parameters", info.full_name(), w.cols());
  });
  R initialized = router;
  initialized.initialize(seed{8}, 40, {});
  for (R* other : {&gradients, &initialized}) { // with the router's visited tensors they must route like it
    R copy = *other;
    copy_parameters(router, copy);
    const routed<T> twin(copy, x, tokens, company.inputs);
    found.expect(same_bits(twin.scores(), run.scores()) && same_bits(twin.weights(), run.weights()),
                 "visit_parameters visits every parameter",
                 other == &gradients ? "a copy that was used as gradients"
                                     : "a copy that was initialised with another seed",
                 " has the same visited tensors and routes otherwise");
  }

  const std::vector<T> dx_once = dx.values();
  backward();
  const auto doubled = [](std::vector<T> values) {
    for (T& value : values)
      value *= 2;
    return values;
  };
  found.expect(relative_error(dx.values(), doubled(dx_once)) <= rounding_tolerance<T>, "backward adds to dx",
               "a second backward pass did not double it");
  found.expect(relative_error(vector_view<const T>(d_before.data(), d_before.size()), doubled(d_before_once)) <=
                   rounding_tolerance<T>,
               "backward adds to the previous layer's gradient", "a second backward pass did not double it");
  next = 0;
  gradients.visit_parameters([&](const parameter_info& info, matrix_view<T> g) {
    found.expect(relative_error(vector_view<const T>(g.data(), g.size()), doubled(slopes[next++].second)) <=
                     rounding_tolerance<T>,
                 "gradients are added, not overwritten", "a second backward pass did not double that of ",
                 info.full_name());
  });
}

} // namespace detail

/// Checks a whole router on random parameters: well-formed assignments, also of no token; routing of a token that does
/// not depend on its batch or on the thread; writes inside of their arrays, and parameters that are all visited; and
/// gradients, from the weights and from what losses left in the trace,
/// that are added to dx, to the parameters' gradients and to the previous layer's, and agree with central differences.
/// See check_selection and check_weighting for its policies.
template <router_policy R> [[nodiscard]] report check_router(const R& subject, const router_options& options = {}) {
  using T = typename R::value_type;
  report found;
  found.expect_no_throw("works without an exception",
                        [&] { detail::check_held_router<T>(detail::held_router<T>(subject), options, found); });
  return found;
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
