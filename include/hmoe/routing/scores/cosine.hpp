// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/routing/projection.hpp>
#include <hmoe/routing/score.hpp>
#include <hmoe/routing/score_function.hpp>
#include <hmoe/routing/score_functions/softmax.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

namespace hmoe::routing {

/// Routing by direction on a low-dimensional sphere (X-MoE, Chi et al. 2022, arXiv 2204.09179, eq. 5):
///   logits_i = cos(W_p x, e_i) / τ,   W_p [m×d], e_i rows of E [N×m],
/// where a vector shorter than 1e-12 counts as that long. The learned temperature is kept as log(1/τ), so that τ stays
/// positive. Parameters: projection (W_p), embeddings (E), log_inverse_temperature.
template <float_or_double T, class Function = softmax> class cosine {
  static_assert(score_function<Function, T>,
                "hmoe::routing::cosine: Function does not model hmoe::score_function: it needs forward(z, p) and "
                "backward(z, p, d_p, d_z) const over one row (see hmoe/routing/score_function.hpp)");

public:
  using value_type = T;

  /// `dimension`: m, N/2 (at least 1) in the paper; `temperature`: τ at the start, 0.07 in the paper.
  struct options {
    std::size_t dimension = 0; ///< 0: N/2, at least 1
    double temperature = 0.07;
  };

  cosine(std::size_t d_model, std::size_t experts) : cosine(d_model, experts, options{}) {}
  cosine(std::size_t d_model, std::size_t experts, options choice, Function function = {})
      : projection_(dimension_of(choice, experts), d_model), embeddings_(experts, dimension_of(choice, experts)),
        log_inverse_temperature_(1, 1), start_(choice.temperature), function_(function) {
    require(d_model >= 1 && experts >= 1, "a router from d_model = ", d_model, " to ", experts,
            " experts: both must be at least 1");
    require(std::isfinite(start_) && start_ > 0, "cosine with temperature = ", start_,
            ": it must be finite and above 0");
    set_temperature(start_);
  }

  [[nodiscard]] std::size_t d_model() const noexcept { return projection_.cols(); }
  [[nodiscard]] std::size_t size() const noexcept { return embeddings_.rows(); }
  /// m, the dimension of the sphere's space.
  [[nodiscard]] std::size_t dimension() const noexcept { return embeddings_.cols(); }
  [[nodiscard]] const Function& function() const noexcept { return function_; }
  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("start_temperature", start_); }
  [[nodiscard]] double temperature() const noexcept {
    return std::exp(-static_cast<double>(log_inverse_temperature_(0, 0)));
  }
  void set_temperature(double value) noexcept { log_inverse_temperature_(0, 0) = static_cast<T>(-std::log(value)); }
  [[nodiscard]] matrix_view<T> projection() noexcept { return projection_; }
  [[nodiscard]] matrix_view<const T> projection() const noexcept { return projection_; }
  [[nodiscard]] matrix_view<T> embeddings() noexcept { return embeddings_; }
  [[nodiscard]] matrix_view<const T> embeddings() const noexcept { return embeddings_; }

  /// Saved of a token: the direction of W_p x, and its length.
  [[nodiscard]] std::size_t saved_per_token() const noexcept { return dimension() + 1; }
  void lay_out(std::pmr::memory_resource* memory, std::size_t tokens) const {
    const backward_memory all(memory, size(), dimension(), tokens); // forward takes `unit` alone
  }

  template <execution_context Context>
  void forward(const Context& ctx, matrix_view<const T> x, router_trace<T>& trace) const {
    const auto direction = trace.score_saved().column_block(0, dimension());
    detail::project(ctx, x, projection(), direction);
    hmoe::for_each_row(ctx, x.rows(),
                       [&](std::size_t t) { trace.score_saved()(t, dimension()) = normalize(direction.row(t)); });
    auto unit = matrix<T>::for_overwrite(size(), dimension(), &ctx.workspace());
    unit_embeddings(unit);
    detail::project(ctx, matrix_view<const T>(direction), std::as_const(unit).view(), trace.logits());
    const T scale = inverse_temperature();
    hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) {
      for (T& logit : trace.logits().row(t))
        logit *= scale;
    });
  }

  /// With u, v the directions of W_p x and e_i: ∂L/∂u = Σ_i ∂L/∂logits_i v_i / τ, ∂L/∂v_i = Σ_t ∂L/∂logits_i u / τ,
  /// ∂L/∂log(1/τ) = Σ_t ⟨u, ∂L/∂u⟩, and through each normalisation (∂L/∂u − u⟨u, ∂L/∂u⟩) / length.
  template <execution_context Context>
  void backward(const Context& ctx, matrix_view<const T> x, const router_trace<T>& trace, matrix_view<const T> d_logits,
                matrix_view<T> dx, cosine& gradients) const {
    const std::size_t m = dimension();
    const auto direction = trace.score_saved().column_block(0, m);
    const T scale = inverse_temperature();
    backward_memory memory(&ctx.workspace(), size(), m, x.rows());
    matrix<T>&unit = memory.unit, &d_unit = memory.d_unit, &d_direction = memory.d_direction;
    unit_embeddings(unit);
    d_unit.set_zero();
    d_direction.set_zero();
    detail::project_backward(ctx, direction, std::as_const(unit).view(), d_logits, d_direction.view(), d_unit.view());

    double d_log = 0; // in the order of tokens, whoever computes
    for (std::size_t t = 0; t < x.rows(); ++t)
      for (std::size_t c = 0; c < m; ++c)
        d_log += static_cast<double>(d_direction(t, c) *= scale) * static_cast<double>(direction(t, c));
    gradients.log_inverse_temperature_(0, 0) += static_cast<T>(d_log);
    for (std::size_t i = 0; i < size(); ++i) {
      const T length = length_of(embeddings().row(i));
      for (T& value : d_unit.row(i))
        value *= scale;
      through_normalization(std::as_const(unit).row(i), length, d_unit.row(i));
      for (std::size_t c = 0; c < m; ++c)
        gradients.embeddings_(i, c) += d_unit(i, c);
    }
    hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) {
      through_normalization(direction.row(t), trace.score_saved()(t, m), d_direction.row(t));
    });
    detail::project_backward(ctx, x, projection(), std::as_const(d_direction).view(), dx, gradients.projection());
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) const { hmoe::detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(parameter_info{"router.projection"}, projection());
    visit(parameter_info{"router.embeddings"}, embeddings());
    visit(parameter_info{"router.log_inverse_temperature", false}, log_inverse_temperature_.view());
  }
  /// Directions have no natural size, so both matrices get the fan-in rule; τ its starting value.
  void initialize(seed key, std::uint64_t stream, const initialization&) {
    const auto fill = [&](matrix<T>& values, std::uint64_t offset) {
      fill_normal(vector_view<T>(values.data(), values.size()), 1 / std::sqrt(static_cast<double>(values.cols())), key,
                  stream + offset);
    };
    fill(projection_, 0);
    fill(embeddings_, 1);
    set_temperature(start_);
  }

private:
  static constexpr double shortest = 1e-12;

  struct backward_memory {
    backward_memory(std::pmr::memory_resource* memory, std::size_t experts, std::size_t dimension, std::size_t tokens)
        : unit(matrix<T>::for_overwrite(experts, dimension, memory)),
          d_unit(matrix<T>::for_overwrite(experts, dimension, memory)),
          d_direction(matrix<T>::for_overwrite(tokens, dimension, memory)) {}

    matrix<T> unit, d_unit, d_direction; ///< e_i / |e_i|, its gradient, and that of the tokens' directions
  };

  [[nodiscard]] static std::size_t dimension_of(const options& choice, std::size_t experts) noexcept {
    return choice.dimension != 0 ? choice.dimension : std::max<std::size_t>(experts / 2, 1);
  }
  [[nodiscard]] T inverse_temperature() const noexcept { return std::exp(log_inverse_temperature_(0, 0)); }
  template <class Row> [[nodiscard]] static T length_of(Row row) noexcept {
    double sum = 0;
    for (const T value : row)
      sum += static_cast<double>(value) * static_cast<double>(value);
    const double length = std::sqrt(sum);
    return static_cast<T>(length < shortest ? shortest : length);
  }
  static T normalize(vector_view<T> row) noexcept {
    const T length = length_of(row);
    for (T& value : row)
      value /= length;
    return length;
  }
  /// d = ∂L/∂(v/|v|) becomes ∂L/∂v, given the direction and the length.
  static void through_normalization(vector_view<const T> direction, T length, vector_view<T> d) noexcept {
    double along = 0;
    if (length > static_cast<T>(shortest)) // else the length is a constant
      for (std::size_t c = 0; c < d.size(); ++c)
        along += static_cast<double>(direction[c]) * static_cast<double>(d[c]);
    for (std::size_t c = 0; c < d.size(); ++c)
      d[c] = (d[c] - direction[c] * static_cast<T>(along)) / length;
  }
  void unit_embeddings(matrix<T>& unit) const {
    for (std::size_t i = 0; i < size(); ++i) {
      std::ranges::copy(embeddings_.row(i), unit.row(i).begin());
      normalize(unit.row(i));
    }
  }

  matrix<T> projection_, embeddings_, log_inverse_temperature_;
  double start_;
  Function function_;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
