// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/routing/accepted_batch.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace hmoe {

namespace detail {

/// How many values the tensors have, and how many of them are not 0.
struct value_count {
  std::size_t all = 0, not_zero = 0;
  template <class View> void add(const View& values) {
    for (std::size_t r = 0; r < values.rows(); ++r)
      for (const auto value : values.row(r)) {
        ++all;
        not_zero += value == 0 ? 0 : 1; // NaN is not 0
      }
  }
};

/// "expert 3", "experts 0 and 1", "experts 0, 1, 2, … (60 in all)"
[[nodiscard]] inline std::string list_of_experts(const std::vector<std::size_t>& ids) {
  std::string text = ids.size() == 1 ? "expert " : "experts ";
  const std::size_t shown = std::min<std::size_t>(ids.size(), 8);
  for (std::size_t i = 0; i < shown; ++i)
    text += (i == 0 ? "" : i + 1 == ids.size() ? " and " : ", ") + std::to_string(ids[i]);
  return shown == ids.size() ? text : text + ", … (" + std::to_string(ids.size()) + " in all)";
}

} // namespace detail

/// What is wrong with a layer though every part of it is right, as a list of sentences that name the remedy; empty
/// where nothing was found. Looks at the parameters, and at what the router does with `tokens` random tokens of normal
/// values (0: 256, and at least 16 per expert; a replay gets its own batch):
///   - experts, or a router, whose weights are all 0: a layer that was never initialised
///   - experts that no token chose, and a router that sends all tokens to the same ones, as one of zeros does
///   - a router whose parameters get no gradient from the layer's output: renormalized with one expert per token, or
///     equal_weights
/// For a look before a long run: it copies the router and takes a forward and a backward pass of it.
template <execution_context Context, class Layer>
[[nodiscard]] std::vector<std::string> diagnose(const Context& ctx, const Layer& layer, std::size_t tokens = 0) {
  using T = typename Layer::value_type;
  std::vector<std::string> found;
  detail::value_count experts, routing;
  layer.experts().visit_parameters([&](const parameter_info&, auto values) { experts.add(values); });
  layer.router().visit_parameters([&](const parameter_info& info, auto values) {
    if (info.trained)
      routing.add(values);
  });
  if (experts.all != 0 && experts.not_zero == 0)
    found.push_back("All " + std::to_string(experts.all) +
                    " weights of the experts are 0, so y is 0: the layer was never "
                    "initialised. Call initialize(seed), or load weights.");
  if (routing.all != 0 && routing.not_zero == 0)
    found.push_back("All " + std::to_string(routing.all) +
                    " weights of the router are 0, so all experts tie for every "
                    "token and the lowest ids win: the router was never initialised. Call initialize(seed), or load "
                    "weights.");

  auto gradients = layer.router();
  const auto& router = layer.router();
  if (tokens == 0)
    tokens = std::max<std::size_t>(256, 16 * router.routed());
  std::vector<index_t> ids;
  const auto accepted = hmoe::routing::accepted_batch_of(router);
  if (accepted.tokens != 0)
    tokens = accepted.tokens;
  const std::size_t vocabulary = accepted.vocabulary == 0 ? tokens : accepted.vocabulary;
  for (std::size_t t = 0; t < tokens; ++t)
    ids.push_back(static_cast<index_t>(t % vocabulary));

  matrix<T> x(tokens, router.d_model()), dx(tokens, router.d_model());
  fill_normal(vector_view<T>(x.data(), x.size()), 1.0, seed{0}, 0);
  router_trace<T> trace;
  trace.resize(tokens, router.routed(), router.saved_per_token(), true);
  trace.set_inputs({.noise = noise_source{seed{0}, 1}, .token_ids = ids});
  assignment<T> assigned;
  const workspace::scope scope(ctx.workspace());
  router.forward(ctx, std::as_const(x).view(), trace, assigned);

  std::vector<std::size_t> never, always;
  for (std::size_t e = 0; e < router.routed(); ++e) {
    const std::size_t count = trace.tokens_per_expert()[e];
    if (count == 0)
      never.push_back(e);
    else if (count == tokens)
      always.push_back(e);
  }
  const std::string probes = std::to_string(tokens) + " random tokens";
  if (tokens > 1 && !never.empty() && !always.empty() && never.size() + always.size() == router.routed())
    found.push_back("All " + probes + " go to " + detail::list_of_experts(always) +
                    ", none to any other expert: the router does not tell tokens apart. Initialise it, or look at its "
                    "biases.");
  else if (tokens > 1 && !never.empty())
    found.push_back("None of " + probes + " goes to " + detail::list_of_experts(never) +
                    ": look at the router's weights and biases and at the selection.");

  buffer<T> d_weights(assigned.size());
  for (std::size_t a = 0; a < assigned.size(); ++a)
    d_weights[a] = static_cast<T>(normal(seed{1}, 0, a));
  set_zero(gradients);
  router.backward(ctx, std::as_const(x).view(), std::as_const(trace), std::as_const(assigned),
                  std::as_const(d_weights).view(), dx.view(), gradients);
  detail::value_count moved;
  gradients.visit_parameters([&](const parameter_info& info, auto values) {
    if (info.trained)
      moved.add(values);
  });
  if (moved.all != 0 && moved.not_zero == 0 && assigned.size() != 0)
    found.emplace_back(
        "The router gets no gradient from the layer's output, because the weights of a token's experts do "
        "not depend on its logits (renormalized with one expert per token, or equal_weights): only auxiliary losses "
        "train it. For k = 1 take the weighting raw or sigmoid_of_logit.");
  return found;
}

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
