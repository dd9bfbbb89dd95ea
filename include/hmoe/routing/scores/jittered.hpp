// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/routing/projection.hpp>
#include <hmoe/routing/score.hpp>
#include <hmoe/routing/scores/noise.hpp>

#include <algorithm>
#include <utility>

namespace hmoe::routing {

/// Another score sees each value of the token times an own factor: x'_c = x_c u_c, u_c uniform in (1 − ε, 1 + ε)
/// (Switch Transformer, arXiv 2101.03961, ε = 1e-2; Mixtral's router_jitter_noise). u comes from routing_inputs::noise
/// (see `noisy`); without it x' = x. Experts still read x: the Mixtral of Hugging Face transformers, which in training
/// shows x' to its experts as well, differs there.
template <class Score> class jittered : public score_wrapper<Score> {
  static_assert(score<Score>, "hmoe::routing::jittered: Score does not model hmoe::score (see hmoe/routing/score.hpp); "
                              "wrap for instance routing::linear<float>");
  using base = score_wrapper<Score>;
  using base::inner_;

public:
  using value_type = typename Score::value_type;

  explicit jittered(Score inner, double epsilon = 1e-2) : base(std::move(inner)), epsilon_(epsilon) {
    require(epsilon >= 0 && epsilon < 1, "jittered with epsilon = ", epsilon, ": it must be in [0, 1)");
  }
  jittered(std::size_t d_model, std::size_t experts, double epsilon = 1e-2)
      : jittered(Score(d_model, experts), epsilon) {}

  [[nodiscard]] double epsilon() const noexcept { return epsilon_; }
  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("epsilon", epsilon_); }
  void lay_out(std::pmr::memory_resource* memory, std::size_t tokens) const {
    routing::lay_out_part(inner_, memory, tokens);
    static_cast<void>(rows(memory, tokens));
    static_cast<void>(rows(memory, tokens));
  }

  template <execution_context Context>
  void forward(const Context& ctx, matrix_view<const value_type> x, router_trace<value_type>& trace) const {
    if (!trace.inputs().noise) {
      inner_.forward(ctx, x, trace);
      return;
    }
    auto seen = rows(&ctx.workspace(), x.rows());
    multiply_by_noise(ctx, *trace.inputs().noise, x, seen);
    inner_.forward(ctx, std::as_const(seen).view(), trace);
  }

  /// ∂L/∂x_c = ∂L/∂x'_c u_c
  template <execution_context Context>
  void backward(const Context& ctx, matrix_view<const value_type> x, const router_trace<value_type>& trace,
                matrix_view<const value_type> d_logits, matrix_view<value_type> dx, jittered& gradients) const {
    const auto& noise = trace.inputs().noise;
    if (!noise) {
      inner_.backward(ctx, x, trace, d_logits, dx, gradients.inner_);
      return;
    }
    auto seen = rows(&ctx.workspace(), x.rows()), d_seen = rows(&ctx.workspace(), x.rows());
    multiply_by_noise(ctx, *noise, x, seen);
    d_seen.set_zero();
    inner_.backward(ctx, std::as_const(seen).view(), trace, d_logits, d_seen.view(), gradients.inner_);
    hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) {
      for (std::size_t c = 0; c < x.cols(); ++c)
        dx(t, c) += d_seen(t, c) * factor(*noise, t, c);
    });
  }

private:
  [[nodiscard]] matrix<value_type> rows(std::pmr::memory_resource* memory, std::size_t tokens) const {
    return matrix<value_type>::for_overwrite(tokens, this->d_model(), memory);
  }
  [[nodiscard]] value_type factor(const noise_source& noise, std::size_t token, std::size_t column) const noexcept {
    return static_cast<value_type>(detail::jitter_factor(noise, epsilon_, token, this->d_model(), column));
  }
  template <execution_context Context>
  void multiply_by_noise(const Context& ctx, const noise_source& noise, matrix_view<const value_type> x,
                         matrix<value_type>& seen) const {
    hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) {
      for (std::size_t c = 0; c < x.cols(); ++c)
        seen(t, c) = x(t, c) * factor(noise, t, c);
    });
  }

  double epsilon_;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
