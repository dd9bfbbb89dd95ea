// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/routing/projection.hpp>
#include <hmoe/routing/score.hpp>
#include <hmoe/routing/scores/noise.hpp>

#include <cmath>
#include <utility>

namespace hmoe::routing {

/// Gumbel noise on the logits of another score: logits_i = z_i + s g_i, g_i = −log(−log u_i). With s = 1 the top k of
/// the logits are k draws without replacement from softmax(z) (Kool et al. 2019, arXiv 1903.06059); probabilities are
/// made of the noisy logits. u comes from routing_inputs::noise (see `noisy`); without it the logits are z. Adds no
/// parameter, and no cost in the backward pass.
template <class Score> class gumbel : public score_wrapper<Score> {
  static_assert(score<Score>, "hmoe::routing::gumbel: Score does not model hmoe::score (see hmoe/routing/score.hpp); "
                              "wrap for instance routing::linear<float>");
  using base = score_wrapper<Score>;
  using base::inner_;

public:
  using value_type = typename Score::value_type;

  explicit gumbel(Score inner, double scale = 1) : base(std::move(inner)), scale_(scale) {
    require(std::isfinite(scale) && scale >= 0, "gumbel with scale = ", scale, ": it must be finite and not below 0");
  }
  gumbel(std::size_t d_model, std::size_t experts, double scale = 1) : gumbel(Score(d_model, experts), scale) {}

  [[nodiscard]] double scale() const noexcept { return scale_; }
  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("scale", scale_); }
  void lay_out(std::pmr::memory_resource* memory, std::size_t tokens) const {
    routing::lay_out_part(inner_, memory, tokens);
  }

  template <execution_context Context>
  void forward(const Context& ctx, matrix_view<const value_type> x, router_trace<value_type>& trace) const {
    inner_.forward(ctx, x, trace);
    const auto& noise = trace.inputs().noise;
    if (!noise)
      return;
    hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) {
      const auto logits = trace.logits().row(t);
      for (std::size_t i = 0; i < logits.size(); ++i)
        logits[i] += static_cast<value_type>(scale_ * detail::gumbel_noise(*noise, t, logits.size(), i));
    });
  }
  template <execution_context Context>
  void backward(const Context& ctx, matrix_view<const value_type> x, const router_trace<value_type>& trace,
                matrix_view<const value_type> d_logits, matrix_view<value_type> dx, gumbel& gradients) const {
    inner_.backward(ctx, x, trace, d_logits, dx, gradients.inner_);
  }

private:
  double scale_;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
