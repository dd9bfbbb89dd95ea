// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/reference.hpp>
#include <hmoe/core/assignment.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/testing/report.hpp>
#include <hmoe/testing/selection_laws.hpp>
#include <hmoe/testing/weighting_laws.hpp>

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>
#include <vector>

namespace hmoe::testing {

/// How a router is exercised.
struct router_options {
  std::size_t tokens = 6;
  bool token_by_token = true; ///< off for batch-wide selections, where tokens compete
  double tolerance = 0;       ///< of gradients; 0 means gradient_tolerance<value_type>
};

namespace detail {

/// A router's forward pass over a batch.
template <class R> struct routed {
  using T = typename R::value_type;
  router_trace<T> trace;
  assignment<T> assigned;

  routed(const R& router, const std::vector<T>& x, std::size_t tokens) {
    const context ctx{backends::reference{}};
    const workspace::scope scope(ctx.workspace());
    trace.resize(tokens, router.routed(), router.saved_per_token(), true);
    router.forward(ctx, matrix_view<const T>(x.data(), tokens, router.d_model()), trace, assigned);
  }
  [[nodiscard]] std::vector<T> weights() const { return {assigned.weights().begin(), assigned.weights().end()}; }
  [[nodiscard]] std::vector<index_t> experts() const { return {assigned.experts().begin(), assigned.experts().end()}; }
  [[nodiscard]] std::vector<T> scores() const {
    std::vector<T> all(trace.logits().data(), trace.logits().data() + trace.logits().size());
    all.insert(all.end(), trace.probabilities().data(), trace.probabilities().data() + trace.probabilities().size());
    return all;
  }
};

template <class R> void check_assignment(const R& router, const routed<R>& run, std::size_t tokens, report& found) {
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

} // namespace detail

/// Checks a whole router on random parameters: well-formed assignments, also of no token; routing of a token that does
/// not depend on its batch or on the thread; and gradients, from the weights and from what losses left in the trace,
/// that are added to dx and to the parameters' gradients and agree with central differences. See check_selection and
/// check_weighting for its policies.
template <router R> [[nodiscard]] report check_router(const R& subject, const router_options& options = {}) {
  using T = typename R::value_type;
  report found;
  const double tolerance = options.tolerance > 0 ? options.tolerance : gradient_tolerance<T>;
  found.expect_no_throw("works without an exception", [&] {
    R router = subject;
    const std::size_t d = router.d_model(), experts = router.routed(), tokens = options.tokens;
    std::uint64_t stream = 8000;
    router.visit_parameters([&](const parameter_info&, matrix_view<T> view) {
      fill_normal(vector_view<T>(view.data(), view.size()), 2 / std::sqrt(static_cast<double>(d)), seed{0x686d6f65},
                  stream++);
    });
    std::vector<T> x = random_values<T>(tokens * d, 11);
    const detail::routed<R> run(router, x, tokens), nothing(router, {}, 0);
    detail::check_assignment(router, run, tokens, found);
    detail::check_assignment(router, nothing, 0, found);

    for (std::size_t t = 0; t < tokens && options.token_by_token; ++t) {
      const std::vector<T> row(x.begin() + static_cast<std::ptrdiff_t>(t * d),
                               x.begin() + static_cast<std::ptrdiff_t>((t + 1) * d));
      const detail::routed<R> alone(router, row, 1);
      const auto same = [](const auto& a, const auto& b) { return same_bits(a, b); };
      found.expect(same(alone.assigned.experts_of(0), run.assigned.experts_of(t)) &&
                       same(alone.assigned.weights_of(0), run.assigned.weights_of(t)),
                   "the routing of a token does not depend on its batch", "token ", t,
                   " is routed differently alone than among ", tokens);
    }
    found.expect(repeatable([&] { return detail::routed<R>(router, x, tokens).scores(); }) &&
                     repeatable([&] { return detail::routed<R>(router, x, tokens).weights(); }),
                 "routes the same every time", "the same batch again, or on another thread, gave other numbers");

    // L = Σ c·w + Σ s·(logits, probabilities): gradients by the weights, and in both sinks.
    const std::vector<T> c = random_values<T>(run.weights().size(), 12), s = random_values<T>(run.scores().size(), 13);
    detail::routed<R> with_sinks(router, x, tokens);
    std::copy_n(s.begin(), tokens * experts, with_sinks.trace.d_logits().data());
    std::copy_n(s.begin() + static_cast<std::ptrdiff_t>(tokens * experts), tokens * experts,
                with_sinks.trace.d_probabilities().data());
    const auto loss = [&] {
      const detail::routed<R> moved(router, x, tokens);
      return moved.experts() == run.experts() ? inner_product(moved.weights(), c) + inner_product(moved.scores(), s)
                                              : std::numeric_limits<double>::quiet_NaN();
    };
    R gradients = router;
    set_zero(gradients);
    matrix<T> dx(tokens, d);
    const auto backward = [&] {
      const context ctx{backends::reference{}};
      const workspace::scope scope(ctx.workspace());
      router.backward(ctx, matrix_view<const T>(x.data(), tokens, d), std::as_const(with_sinks.trace),
                      std::as_const(with_sinks.assigned), vector_view<const T>(c), dx.view(), gradients);
    };
    const auto compare = [&](const auto& analytic, const auto& numeric, const char* law, const std::string& name) {
      const double error = relative_error(analytic, numeric);
      found.expect(error <= tolerance, law, name, " differs by ", error, " of the largest value, allowed are ",
                   tolerance);
    };
    backward();
    compare(vector_view<const T>(dx.data(), dx.size()), finite_differences(vector_view<T>(x), loss),
            "backward's dx is the derivative by x", "dx");
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
              "backward's gradients are the derivatives by the parameters", info.full_name());
    });

    const std::vector<T> dx_once(dx.data(), dx.data() + dx.size());
    backward();
    const auto doubled = [](std::vector<T> values) {
      for (T& value : values)
        value *= 2;
      return values;
    };
    found.expect(relative_error(vector_view<const T>(dx.data(), dx.size()), doubled(dx_once)) <= rounding_tolerance<T>,
                 "backward adds to dx", "a second backward pass did not double it");
    next = 0;
    gradients.visit_parameters([&](const parameter_info& info, matrix_view<T> g) {
      found.expect(relative_error(vector_view<const T>(g.data(), g.size()), doubled(slopes[next++].second)) <=
                       rounding_tolerance<T>,
                   "gradients are added, not overwritten", "a second backward pass did not double that of ",
                   info.full_name());
    });
  });
  return found;
}

} // namespace hmoe::testing
