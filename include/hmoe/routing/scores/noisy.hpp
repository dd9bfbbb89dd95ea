// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/scalar_functions.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/routing/projection.hpp>
#include <hmoe/routing/score.hpp>
#include <hmoe/routing/scores/linear.hpp>
#include <hmoe/routing/scores/noise.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

namespace hmoe::routing {

/// Learned noise on the logits of another score (Shazeer et al. 2017, arXiv 1701.06538, eq. 4):
///   logits_i = z_i + n_i (softplus((W_n x)_i) + ε),   n_i ~ N(0, 1),   W_n [N×d].
/// n comes from routing_inputs::noise: token t, expert i uses one position of that step's stream, so forward and
/// backward, and any number of threads, see the same numbers; give each layer a key or step of its own. Without a
/// noise source the logits are z. Parameter: noise_weight, zero at first, as in the paper. ε: 1e-2 in the authors'
/// code.
template <class Score> class noisy : public score_wrapper<Score> {
  static_assert(score<Score>, "hmoe::routing::noisy: Score does not model hmoe::score (see hmoe/routing/score.hpp); "
                              "wrap for instance routing::linear<float>");
  using base = score_wrapper<Score>;
  using base::inner_;

public:
  using value_type = typename Score::value_type;

  explicit noisy(Score inner, double epsilon = 0)
      : base(std::move(inner)), noise_weight_(this->size(), this->d_model()), epsilon_(epsilon) {
    require(std::isfinite(epsilon) && epsilon >= 0, "noisy with epsilon = ", epsilon,
            ": it must be finite and not below 0");
  }
  noisy(std::size_t d_model, std::size_t experts, double epsilon = 0) : noisy(Score(d_model, experts), epsilon) {}

  [[nodiscard]] matrix_view<value_type> noise_weight() noexcept { return noise_weight_; }
  [[nodiscard]] matrix_view<const value_type> noise_weight() const noexcept { return noise_weight_; }
  [[nodiscard]] double epsilon() const noexcept { return epsilon_; }
  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("epsilon", epsilon_); }

  /// Saved of a token: W_n x, then n. losses::noisy_load reads both, and adds ∂L/∂(W_n x) to trace.d_score_saved().
  [[nodiscard]] std::size_t saved_per_token() const noexcept { return inner_.saved_per_token() + 2 * this->size(); }
  void lay_out(std::pmr::memory_resource* memory, std::size_t tokens) const {
    routing::lay_out_part(inner_, memory, tokens);
    static_cast<void>(spread_gradient(memory, tokens));
  }

  template <execution_context Context>
  void forward(const Context& ctx, matrix_view<const value_type> x, router_trace<value_type>& trace) const {
    inner_.forward(ctx, x, trace);
    const auto& noise = trace.inputs().noise;
    if (!noise)
      return;
    const std::size_t n = this->size();
    const auto spread = trace.score_saved().column_block(inner_.saved_per_token(), n);
    const auto drawn = trace.score_saved().column_block(inner_.saved_per_token() + n, n);
    detail::project(ctx, x, noise_weight(), spread);
    hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) {
      const auto logits = trace.logits().row(t);
      for (std::size_t i = 0; i < n; ++i) {
        drawn(t, i) = static_cast<value_type>(detail::normal_noise(*noise, t, n, i));
        logits[i] += drawn(t, i) * (hmoe::softplus(spread(t, i)) + static_cast<value_type>(epsilon_));
      }
    });
  }

  /// With r = W_n x: ∂L/∂r_i = ∂L/∂logits_i n_i σ(r_i), and what losses left in the trace's sink
  template <execution_context Context>
  void backward(const Context& ctx, matrix_view<const value_type> x, const router_trace<value_type>& trace,
                matrix_view<const value_type> d_logits, matrix_view<value_type> dx, noisy& gradients) const {
    inner_.backward(ctx, x, trace, d_logits, dx, gradients.inner_);
    if (!trace.inputs().noise)
      return;
    const std::size_t n = this->size();
    const auto spread = trace.score_saved().column_block(inner_.saved_per_token(), n);
    const auto drawn = trace.score_saved().column_block(inner_.saved_per_token() + n, n);
    const auto sink = trace.d_score_saved().column_block(inner_.saved_per_token(), n);
    auto d_spread = spread_gradient(&ctx.workspace(), x.rows());
    hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) {
      if (!trace.is_valid(t)) {
        std::ranges::fill(d_spread.row(t), value_type(0));
        return;
      }
      for (std::size_t i = 0; i < n; ++i)
        d_spread(t, i) = d_logits(t, i) * drawn(t, i) * hmoe::logistic(spread(t, i)) + sink(t, i);
    });
    detail::project_backward(ctx, x, noise_weight(), std::as_const(d_spread).view(), dx, gradients.noise_weight());
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) const { hmoe::detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    inner_.visit_parameters(visit);
    visit(parameter_info{"router.noise_weight"}, noise_weight());
  }
  void initialize(seed key, std::uint64_t stream, const initialization& options) {
    inner_.initialize(key, stream, options);
    noise_weight_.set_zero();
  }

private:
  /// ∂L/∂(W_n x)
  [[nodiscard]] matrix<value_type> spread_gradient(std::pmr::memory_resource* memory, std::size_t tokens) const {
    return matrix<value_type>::for_overwrite(tokens, this->size(), memory);
  }

  matrix<value_type> noise_weight_;
  double epsilon_;
};

/// The score of the sparsely-gated layer of 2017: a linear one with learned noise.
template <float_or_double T, class Function = softmax> using noisy_linear = noisy<linear<T, Function>>;

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
