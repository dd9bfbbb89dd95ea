// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/vector_view.hpp>

#include <concepts>
#include <cstddef>
#include <optional>

namespace hmoe {

/// Which row a weighting works on, for those that read more than its values: the token's place in the batch, and where
/// to draw noise, if the pass was given a source.
struct weighting_row {
  std::size_t token = 0;
  std::optional<noise_source> noise{};
};

namespace detail {
template <class W, class T>
concept plain_weighting =
    requires(const W& weight, vector_view<const T> in, vector_view<const index_t> chosen, vector_view<T> out) {
      weight.forward(in, in, chosen, out);
      weight.backward(in, in, chosen, in, in, out, out);
    };
template <class W>
concept reads_weighting_row = requires { requires W::reads_row; };
template <class W, class T>
concept weighting_of_row =
    reads_weighting_row<W> && requires(const W& weight, const weighting_row& at, vector_view<const T> in,
                                       vector_view<const index_t> chosen, vector_view<T> out) {
      weight.forward(at, in, in, chosen, out);
      weight.backward(at, in, in, chosen, in, in, out, out);
    };
template <class W>
concept wants_weighting_scratch = requires(const W& weight, std::size_t n) {
  { weight.scratch_size(n) } -> std::convertible_to<std::size_t>;
};
template <class W, class T>
concept weighting_with_scratch =
    wants_weighting_scratch<W> &&
    requires(const W& weight, vector_view<const T> in, vector_view<const index_t> chosen, vector_view<T> out) {
      weight.forward(in, in, chosen, out, out);
      weight.backward(in, in, chosen, in, in, out, out, out);
    };
/// A visitor that does nothing, for concepts: nvcc takes no lambda there.
struct ignore_any_parameter {
  template <class View> void operator()(const parameter_info&, View) const noexcept {}
};
} // namespace detail

/// Turns a token's probabilities into the weights of its chosen experts. Requirements, for one row:
///   forward(logits[N], p[N], chosen, w)                     w[i]: weight of expert chosen[i]; ids ascend
///   backward(logits, p, chosen, w, dw, d_logits, d_p)       adds ∂L/∂logits and ∂L/∂p, given ∂L/∂w
/// or, with a member scratch_size(N), both with one more argument: that many values of scratch. Optional:
///   validate(N)                             throws hmoe::error when it cannot work with N experts
///   static constexpr bool on_input = true   weights scale what experts read
///   visit_parameters(f), initialize(seed, stream, options), parameter_gradients(logits, p, chosen, w, dw, gradients)
///                                           where it learns parameters: the last one adds ∂L/∂parameters of one token
///                                           to `gradients`, an object of its type, and takes scratch as the others do.
///                                           Tokens come one after another, in order.
/// or, with `static constexpr bool reads_row = true` and without scratch, both with a weighting_row before the others:
/// token and noise. The order in which a selection chose is a function of them, too, and can be found again
/// (sparsemixer does). Only a router passes it: such a weighting cannot be inside another. Those of weightings/ take w
/// and dw as anything with operator[], so that a weighting around another can pass values that it computes.
template <class W, class T>
concept weighting =
    std::copy_constructible<W> && (detail::weighting_of_row<W, T> || detail::weighting_with_scratch<W, T> ||
                                   (!detail::wants_weighting_scratch<W> && detail::plain_weighting<W, T>));

namespace routing {

/// How much scratch a weighting wants for a row of n.
template <class W> [[nodiscard]] std::size_t weighting_scratch(const W& weight, std::size_t n) {
  if constexpr (hmoe::detail::wants_weighting_scratch<W>)
    return weight.scratch_size(n);
  else
    return 0;
}

/// The passes of a weighting, with scratch or without.
template <class W, class T>
void weigh(const W& weight, vector_view<const T> logits, vector_view<const T> p, vector_view<const index_t> chosen,
           vector_view<T> w, vector_view<T> scratch) {
  if constexpr (hmoe::detail::wants_weighting_scratch<W>)
    weight.forward(logits, p, chosen, w, scratch);
  else
    weight.forward(logits, p, chosen, w);
}
template <class W, class T, class Values>
void weigh_backward(const W& weight, vector_view<const T> logits, vector_view<const T> p,
                    vector_view<const index_t> chosen, const Values& w, const Values& dw, vector_view<T> d_logits,
                    vector_view<T> d_p, vector_view<T> scratch) {
  if constexpr (hmoe::detail::wants_weighting_scratch<W>)
    weight.backward(logits, p, chosen, w, dw, d_logits, d_p, scratch);
  else
    weight.backward(logits, p, chosen, w, dw, d_logits, d_p);
}

/// The same where the row is known.
template <class W, class T>
void weigh(const W& weight, const weighting_row& at, vector_view<const T> logits, vector_view<const T> p,
           vector_view<const index_t> chosen, vector_view<T> w, vector_view<T> scratch) {
  if constexpr (hmoe::detail::reads_weighting_row<W>)
    weight.forward(at, logits, p, chosen, w);
  else
    routing::weigh(weight, logits, p, chosen, w, scratch);
}
template <class W, class T>
void weigh_backward(const W& weight, const weighting_row& at, vector_view<const T> logits, vector_view<const T> p,
                    vector_view<const index_t> chosen, vector_view<const T> w, vector_view<const T> dw,
                    vector_view<T> d_logits, vector_view<T> d_p, vector_view<T> scratch) {
  if constexpr (hmoe::detail::reads_weighting_row<W>)
    weight.backward(at, logits, p, chosen, w, dw, d_logits, d_p);
  else
    routing::weigh_backward(weight, logits, p, chosen, w, dw, d_logits, d_p, scratch);
}

/// Whether a weighting learns parameters, and what one token adds to their gradients.
template <class W>
concept learned_weighting = requires(W& weight) { weight.visit_parameters(hmoe::detail::ignore_any_parameter{}); };
template <class W, class T, class Values>
void weigh_parameters(const W& weight, vector_view<const T> logits, vector_view<const T> p,
                      vector_view<const index_t> chosen, const Values& w, const Values& dw, W& gradients,
                      vector_view<T> scratch) {
  if constexpr (learned_weighting<W>) {
    if constexpr (hmoe::detail::wants_weighting_scratch<W>)
      weight.parameter_gradients(logits, p, chosen, w, dw, gradients, scratch);
    else
      weight.parameter_gradients(logits, p, chosen, w, dw, gradients);
  }
}

} // namespace routing
} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
