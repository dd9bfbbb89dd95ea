// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/routing/score.hpp>

#include <cstddef>
#include <memory_resource>
#include <utility>

namespace hmoe::routing {

/// Another score reads routing_inputs::router_x [T×d_router] in place of the tensor that the experts read, and so does
/// the whole router, gates of shared experts included. d_router may differ from the experts' d_model: Gemma 4, whose
/// router reads the residual stream and experts a normalised one; Nemotron-H, whose router reads d_model and experts a
/// latent size. moe_layer::backward then gives ∂L/∂router_x as an output of its own.
template <class Score> class own_input : public score_wrapper<Score> {
  static_assert(score<Score>,
                "hmoe::routing::own_input: Score does not model hmoe::score (see hmoe/routing/score.hpp); "
                "wrap for instance routing::linear<float>");
  using base = score_wrapper<Score>;
  using base::inner_;

public:
  using value_type = typename Score::value_type;
  static constexpr bool reads_router_x = true;

  explicit own_input(Score inner) : base(std::move(inner)) {}
  /// Further arguments are those of the inner score.
  template <class... Arguments>
  own_input(std::size_t d_router, std::size_t experts, Arguments&&... arguments)
      : own_input(Score(d_router, experts, std::forward<Arguments>(arguments)...)) {}

  void lay_out(std::pmr::memory_resource* memory, std::size_t tokens) const {
    routing::lay_out_part(inner_, memory, tokens);
  }
  template <execution_context Context>
  void forward(const Context& ctx, matrix_view<const value_type> x, router_trace<value_type>& trace) const {
    inner_.forward(ctx, x, trace);
  }
  template <execution_context Context>
  void backward(const Context& ctx, matrix_view<const value_type> x, const router_trace<value_type>& trace,
                matrix_view<const value_type> d_logits, matrix_view<value_type> dx, own_input& gradients) const {
    inner_.backward(ctx, x, trace, d_logits, dx, gradients.inner_);
  }
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
