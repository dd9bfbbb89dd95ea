// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/initialization.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/scalar.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>

namespace hmoe {

/// Sends tokens to experts. Requirements:
///   value_type, d_model()
///   size()                                  the number of experts N that it may send a token to
///   routed()                                how many of them compete for tokens: the columns of the trace. The others,
///                                           which come last, are shared: every token gets them.
///   max_selected()                          the most experts a token can get, shared ones included
///   saved_per_token()                       values of the trace's score_saved() that it wants per token
///   weights_on_input()                      whether weights scale what experts read, instead of what they return
///   forward(ctx, x, trace, assigned)        fills both, validating before it writes
///   backward(ctx, x, trace, assigned, d_weights, dx, gradients)
///                                           dx += and gradients +=, from ∂L/∂weights and the trace's sinks
///   visit_parameters(f), initialize(seed, stream, options)
/// Optional: limits_choices(), whether it looks at routing_inputs::most_experts.
/// Optional: reads_router_x(), whether x is routing_inputs::router_x, whose size d_model() may differ from the
/// experts'. Optional, where its passes take scratch from ctx.workspace(): lay_out_forward(dry, T, some_padding) and
/// lay_out_backward(dry, T, some_padding), which take from dry.workspace() what the passes take at most for T tokens,
/// some of them padding or none, and do not touch it (hmoe::dry_run). Optional, where objects of its type can differ in
/// more than values: check_gradients(gradients), const, an hmoe::error where they are no gradients of this router,
/// which layers ask for before a backward pass writes anything. It can be copied (assignment is not needed, so lambdas
/// with captures may be parts of it); its gradients are an object of the same type. Forward and backward are templates
/// over the context, so they are checked where a layer is run.
template <class R>
concept router_policy = std::copy_constructible<R> && requires(const R& r, R& mutable_r) {
  requires float_or_double<typename R::value_type>;
  { r.d_model() } -> std::convertible_to<std::size_t>;
  { r.size() } -> std::convertible_to<std::size_t>;
  { r.routed() } -> std::convertible_to<std::size_t>;
  { r.max_selected() } -> std::convertible_to<std::size_t>;
  { r.saved_per_token() } -> std::convertible_to<std::size_t>;
  { r.weights_on_input() } -> std::convertible_to<bool>;
  mutable_r.visit_parameters(ignore_parameter<typename R::value_type>{});
  mutable_r.initialize(seed{}, std::uint64_t{}, initialization{});
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
