// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/scalar.hpp>

#include <concepts>
#include <cstddef>
#include <memory_resource>
#include <utility>

namespace hmoe {

/// Makes the logits of a batch. Requirements:
///   value_type, d_model()
///   size()                                  number of experts N, the columns of the trace
///   saved_per_token()                       how many values per token of trace.score_saved() are its own: it uses the
///                                           first ones; a score around another uses those behind the inner one's
///   function()                              the score_function that makes probabilities of the logits
///   forward(ctx, x, trace)                  writes trace.logits() [T×N] and what backward needs again
///   backward(ctx, x, trace, d_logits, dx, gradients)
///                                           dx += and gradients +=. It must not read trace.logits(): a score around
///                                           this one may have changed them.
///   visit_parameters(f), initialize(seed, stream, options)
/// Optional: static constexpr bool reads_router_x = true, where x is routing_inputs::router_x (routing::own_input);
/// lay_out(memory, T) const, where its passes take scratch from ctx.workspace(): takes from the given
/// std::pmr::memory_resource* what either pass takes at most, and does not touch it (see moe_layer::workspace_bytes).
/// It is copyable; its gradients are an object of the same type. Forward and backward are templates over the context,
/// so they are checked where a layer is run.
template <class S>
concept score = std::copy_constructible<S> && requires(const S& s, S& mutable_s) {
  requires float_or_double<typename S::value_type>;
  { s.d_model() } -> std::convertible_to<std::size_t>;
  { s.size() } -> std::convertible_to<std::size_t>;
  { s.saved_per_token() } -> std::convertible_to<std::size_t>;
  s.function();
  mutable_s.visit_parameters(ignore_parameter<typename S::value_type>{});
  mutable_s.initialize(seed{}, std::uint64_t{}, initialization{});
};

namespace routing {

/// Whether a part of a router, or a router, reads routing_inputs::router_x in place of the experts' x.
template <class Part> [[nodiscard]] constexpr bool reads_router_x() noexcept {
  if constexpr (requires { Part::reads_router_x; })
    return Part::reads_router_x;
  else
    return false;
}

/// Takes what a part of a router takes in a pass: part.lay_out(memory, sizes...), or nothing where it has no such
/// member.
template <class Part, class... Sizes>
void lay_out_part(const Part& part, std::pmr::memory_resource* memory, Sizes... sizes) {
  if constexpr (requires { part.lay_out(memory, sizes...); })
    part.lay_out(memory, sizes...);
}

/// Base of scores that change what another one does: everything that they pass on.
template <class Score> class score_wrapper {
public:
  using value_type = typename Score::value_type;
  static constexpr bool reads_router_x = routing::reads_router_x<Score>();

  [[nodiscard]] std::size_t d_model() const noexcept { return inner_.d_model(); }
  [[nodiscard]] std::size_t size() const noexcept { return inner_.size(); }
  [[nodiscard]] std::size_t saved_per_token() const noexcept { return inner_.saved_per_token(); }
  [[nodiscard]] decltype(auto) function() const noexcept { return inner_.function(); }
  /// The score that is wrapped.
  [[nodiscard]] Score& inner() noexcept { return inner_; }
  [[nodiscard]] const Score& inner() const noexcept { return inner_; }

  template <class Visitor> void visit_parameters(Visitor&& visit) const { hmoe::detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) { inner_.visit_parameters(visit); }
  void initialize(seed key, std::uint64_t stream, const initialization& options) {
    inner_.initialize(key, stream, options);
  }

protected:
  explicit score_wrapper(Score inner) : inner_(std::move(inner)) {}
  ~score_wrapper() = default;
  score_wrapper(const score_wrapper&) = default;
  score_wrapper(score_wrapper&&) noexcept = default;
  score_wrapper& operator=(const score_wrapper&) = default;
  score_wrapper& operator=(score_wrapper&&) noexcept = default;

  Score inner_;
};

} // namespace routing
} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
