// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/routing/score.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <utility>

namespace hmoe::routing {

/// Another score reads x'_c = s_c x_c / (√d · √(mean_c x_c² + ε)), s learned: the router of Gemma 4. ε is the model's
/// rms_norm_eps and must be given. s is 1 at first. Parameter: input_scale [1×d], without weight decay.
template <class Score> class rms_normalized : public score_wrapper<Score> {
  static_assert(
      score<Score>,
      "hmoe::routing::rms_normalized: Score does not model hmoe::score (see hmoe/routing/score.hpp); wrap for "
      "instance routing::linear<float>");
  using base = score_wrapper<Score>;
  using base::inner_;

public:
  using value_type = typename Score::value_type;

  rms_normalized(Score inner, double epsilon)
      : base(std::move(inner)), scale_(1, inner_.d_model()), epsilon_(epsilon),
        factor_(1 / std::sqrt(static_cast<double>(inner_.d_model()))) {
    require(std::isfinite(epsilon) && epsilon > 0, "rms_normalized with epsilon = ", epsilon,
            ": it must be finite and above 0");
    reset();
  }
  rms_normalized(std::size_t d_model, std::size_t experts, double epsilon)
      : rms_normalized(Score(d_model, experts), epsilon) {}

  [[nodiscard]] double epsilon() const noexcept { return epsilon_; }
  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("epsilon", epsilon_); }
  [[nodiscard]] vector_view<value_type> scale() noexcept { return scale_.row(0); }
  [[nodiscard]] vector_view<const value_type> scale() const noexcept { return scale_.row(0); }

  void lay_out(std::pmr::memory_resource* memory, std::size_t tokens) const {
    routing::lay_out_part(inner_, memory, tokens);
    static_cast<void>(rows(memory, tokens));
    static_cast<void>(rows(memory, tokens));
  }

  template <execution_context Context>
  void forward(const Context& ctx, matrix_view<const value_type> x, router_trace<value_type>& trace) const {
    auto seen = rows(&ctx.workspace(), x.rows());
    hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) { normalize(x.row(t), seen.row(t)); });
    inner_.forward(ctx, std::as_const(seen).view(), trace);
  }

  /// With n = x r, r = 1 / √(mean x² + ε), g = ∂L/∂x' ∘ s / √d: gradients.s += Σ_t ∂L/∂x' ∘ n / √d,
  /// dx += r (g − n ⟨g, n⟩ / d)
  template <execution_context Context>
  void backward(const Context& ctx, matrix_view<const value_type> x, const router_trace<value_type>& trace,
                matrix_view<const value_type> d_logits, matrix_view<value_type> dx, rms_normalized& gradients) const {
    auto seen = rows(&ctx.workspace(), x.rows()), d_seen = rows(&ctx.workspace(), x.rows());
    hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) { normalize(x.row(t), seen.row(t)); });
    d_seen.set_zero();
    inner_.backward(ctx, std::as_const(seen).view(), trace, d_logits, d_seen.view(), gradients.inner_);
    const auto c = static_cast<value_type>(factor_);
    hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) { // d_seen becomes ∂L/∂x' ∘ n / √d
      const value_type r = inverse_root(x.row(t));
      double dot = 0;
      for (std::size_t i = 0; i < x.cols(); ++i)
        dot += static_cast<double>(d_seen(t, i) * scale()[i]) * static_cast<double>(x(t, i));
      const auto along = static_cast<value_type>(dot * factor_ / static_cast<double>(x.cols())) * r;
      for (std::size_t i = 0; i < x.cols(); ++i) {
        const value_type n = x(t, i) * r;
        dx(t, i) += r * (d_seen(t, i) * scale()[i] * c - n * along);
        d_seen(t, i) *= n * c;
      }
    });
    hmoe::for_each_row(ctx, x.cols(), [&](std::size_t i) {
      value_type sum = 0;
      for (std::size_t t = 0; t < x.rows(); ++t)
        sum += d_seen(t, i);
      gradients.scale()[i] += sum;
    });
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) const { hmoe::detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    inner_.visit_parameters(visit);
    visit(parameter_info{"router.input_scale", false}, scale_.view());
  }
  void initialize(seed key, std::uint64_t stream, const initialization& options) {
    inner_.initialize(key, stream, options);
    reset();
  }

private:
  void reset() { std::fill(scale().begin(), scale().end(), value_type(1)); }
  [[nodiscard]] matrix<value_type> rows(std::pmr::memory_resource* memory, std::size_t tokens) const {
    return matrix<value_type>::for_overwrite(tokens, this->d_model(), memory);
  }
  [[nodiscard]] value_type inverse_root(vector_view<const value_type> x) const noexcept {
    double squares = 0;
    for (const value_type value : x)
      squares += static_cast<double>(value) * static_cast<double>(value);
    return static_cast<value_type>(1 / std::sqrt(squares / static_cast<double>(x.size()) + epsilon_));
  }
  void normalize(vector_view<const value_type> x, vector_view<value_type> seen) const noexcept {
    const value_type r = inverse_root(x);
    for (std::size_t i = 0; i < x.size(); ++i)
      seen[i] = x[i] * r * scale()[i] * static_cast<value_type>(factor_);
  }

  matrix<value_type> scale_;
  double epsilon_, factor_;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
