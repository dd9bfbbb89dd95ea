// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/experts/ffn_weights.hpp>

#include <memory_resource>
#include <utility>
#include <vector>

namespace hmoe::experts {

/// Residual low-rank experts of any ranks: expert_e(x) = x + B_e A_e x, A [r_e×d], B [d×r_e] (the update of LoRA,
/// arXiv 2106.09685, as the experts of MoLORA, arXiv 2309.05444, but around the identity instead of a frozen weight;
/// for the update alone use mlp_bank<T, linear>). The width is the rank. Parameters are named a and b. Weights are
/// drawn as those of every other kind; LoRA's start at the identity needs b set to zero.
template <float_or_double T> class low_rank_bank {
public:
  using value_type = T;
  static constexpr bool observes_stages = true;

  /// Zeros, in memory of the given resource.
  low_rank_bank(std::size_t d_model, const std::vector<std::size_t>& ranks,
                std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : weights_(d_model, ranks, biases::none, memory) {}
  /// On the caller's weights, see mlp_bank: a is the lane, b the output. hmoe::error where they have biases.
  explicit low_rank_bank(ffn_weights<T, 1> weights) : weights_(std::move(weights)) {
    require(!weights_.has_biases(), "low_rank_bank: the weights have biases, and x + B A x has none");
  }

  [[nodiscard]] std::size_t size() const noexcept { return weights_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return weights_.d_model(); }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept { return weights_.width(e); }
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const noexcept { return weights_.parameter_count(e); }
  /// The residual's d additions included.
  [[nodiscard]] double flops_per_row(std::size_t e) const noexcept {
    return weights_.flops_per_row(e) + static_cast<double>(d_model());
  }

  [[nodiscard]] matrix_view<T> a(std::size_t e) { return weights_.lane(e, 0); }
  [[nodiscard]] matrix_view<const T> a(std::size_t e) const noexcept { return weights_.lane(e, 0); }
  [[nodiscard]] matrix_view<T> b(std::size_t e) { return weights_.output(e); }
  [[nodiscard]] matrix_view<const T> b(std::size_t e) const noexcept { return weights_.output(e); }

  /// All weights, as backends that keep a form of their own read them.
  [[nodiscard]] const ffn_weights<T, 1>& weights() const noexcept { return weights_; }

  /// Saved of a row: A x.
  [[nodiscard]] std::size_t saved_per_row(std::size_t e) const noexcept { return width(e); }
  [[nodiscard]] std::size_t scratch_per_row(std::size_t e) const noexcept { return width(e); }

  template <class Math>
  void forward(const Math& math, std::size_t e, matrix_view<const T> x, matrix_view<T> y, matrix_view<T> saved) const {
    weights_.project_in(math, e, x, saved);
    weights_.project_out(math, e, saved, y);
    [[maybe_unused]] probes::watch<Math> watched;
    if constexpr (probes::observed<Math>)
      watched.begin(math, sum(probes::direction::forward, x.rows()));
    add(x, y);
  }
  template <class Math>
  void backward(const Math& math, std::size_t e, matrix_view<const T> x, matrix_view<const T> saved,
                matrix_view<const T> dy, matrix_view<T> dx, matrix_view<T> scratch, low_rank_bank& gradients) const {
    weights_.backward_out(math, e, saved, dy, scratch, gradients.weights_);
    weights_.backward_in(math, e, x, scratch, dx, gradients.weights_);
    [[maybe_unused]] probes::watch<Math> watched;
    if constexpr (probes::observed<Math>)
      watched.begin(math, sum(probes::direction::backward, x.rows()));
    add(dy, dx);
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) const {
    visit_in(*this, hmoe::detail::read_with(visit));
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) { visit_in(*this, visit); }
  void initialize(seed key, std::uint64_t first_stream, const initialization& options) {
    weights_.initialize(key, first_stream, options);
  }

private:
  template <class Self, class Visitor> static void visit_in(Self& self, Visitor&& visit) {
    for (std::size_t e = 0; e < self.size(); ++e) {
      visit(parameter_info{"a", true, e}, self.a(e));
      visit(parameter_info{"b", true, e}, self.b(e));
    }
  }
  /// The event of adding rows; as in layer.cost(), backward counts twice.
  [[nodiscard]] probes::event sum(probes::direction direction, std::size_t rows) const noexcept {
    const auto values = static_cast<double>(rows * d_model());
    return {probes::stage::activation, direction, rows, 3 * values * sizeof(T),
            direction == probes::direction::forward ? values : 2 * values};
  }
  static void add(matrix_view<const T> from, matrix_view<T> to) noexcept {
    for (std::size_t r = 0; r < to.rows(); ++r)
      for (std::size_t c = 0; c < to.cols(); ++c)
        to(r, c) += from(r, c);
  }

  ffn_weights<T, 1> weights_;
};

} // namespace hmoe::experts

#include <hmoe/core/macros_on.hpp>
