// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/core/scalar_functions.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/routing/projection.hpp>

#include <algorithm>
#include <utility>

namespace hmoe::routing {

/// The last `count` experts of the set get every token, expert j with weight σ(⟨v_j, x⟩), v [count×d] (Qwen2-MoE's
/// shared_expert_gate). Parameter: shared_gate.
template <float_or_double T> class sigmoid_gated {
public:
  explicit sigmoid_gated(std::size_t d_model, std::size_t count = 1) : gate_(count, d_model) {
    require(d_model >= 1 && count >= 1, "a gate from d_model = ", d_model, " to ", count,
            " shared experts: both must be at least 1");
  }

  [[nodiscard]] std::size_t size() const noexcept { return gate_.rows(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return gate_.cols(); }
  [[nodiscard]] matrix_view<T> gate() noexcept { return gate_; }
  [[nodiscard]] matrix_view<const T> gate() const noexcept { return gate_; }
  void lay_out(std::pmr::memory_resource* memory, std::size_t tokens) const {
    static_cast<void>(sum_gradients(memory, tokens));
  }
  void validate(std::size_t d) const {
    require(d_model() == d, "the gate of the shared experts reads tokens of ", d_model(), " values, the router of ", d);
  }

  void forward(vector_view<const T> x, vector_view<T> weights) const noexcept {
    for (std::size_t j = 0; j < size(); ++j) {
      double sum = 0;
      for (std::size_t c = 0; c < x.size(); ++c)
        sum += static_cast<double>(gate_(j, c)) * static_cast<double>(x[c]);
      weights[j] = hmoe::logistic(static_cast<T>(sum));
    }
  }

  /// With s = ⟨v, x⟩: ∂L/∂s = ∂L/∂w w (1 − w), dx += ∂L/∂s v, gradients.v += ∂L/∂s x
  template <execution_context Context>
  void backward(const Context& ctx, matrix_view<const T> x, const assignment<T>& assigned,
                vector_view<const T> d_weights, matrix_view<T> dx, sigmoid_gated& gradients) const {
    auto d_sums = sum_gradients(&ctx.workspace(), x.rows());
    hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) {
      if (assigned.offsets()[t] == assigned.offsets()[t + 1]) { // padding, which has no shared experts
        std::ranges::fill(d_sums.row(t), T(0));
        return;
      }
      const std::size_t first = assigned.offsets()[t + 1] - size(); // shared experts come last
      for (std::size_t j = 0; j < size(); ++j) {
        const T w = assigned.weights()[first + j];
        d_sums(t, j) = d_weights[first + j] * w * (T(1) - w);
      }
    });
    detail::project_backward(ctx, x, gate(), std::as_const(d_sums).view(), dx, gradients.gate());
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) const { hmoe::detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(parameter_info{"router.shared_gate"}, gate());
  }
  void initialize(seed key, std::uint64_t stream, const initialization& options) {
    fill_normal(vector_view<T>(gate_.data(), gate_.size()), options.router_stddev, key, stream);
  }

private:
  [[nodiscard]] matrix<T> sum_gradients(std::pmr::memory_resource* memory, std::size_t tokens) const {
    return matrix<T>::for_overwrite(tokens, size(), memory);
  }

  matrix<T> gate_;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
