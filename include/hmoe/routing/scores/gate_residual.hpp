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

#include <limits>
#include <utility>

namespace hmoe::routing {

/// A gate that remembers how the previous layer routed the token (MoE++, arXiv 2410.07348, eq. 6):
///   logits = z + W_g · (logits of the previous layer),   W_g [N×M] for M experts there.
/// The previous layer's trace comes from routing_inputs::previous; without one (the first layer) the logits are z. In
/// training its gradient, W_gᵀ ∂L/∂logits, is added to previous->d_logits(): that layer's backward pass must come after
/// this one's, as it does in a network. Padding tokens, and experts of the previous layer that are out of service (−∞),
/// count as logits of 0. Parameter: residual_weight.
template <class Score> class gate_residual : public score_wrapper<Score> {
  static_assert(score<Score>, "hmoe::routing::gate_residual: Score does not model hmoe::score (see "
                              "hmoe/routing/score.hpp); wrap for instance routing::linear<float>");
  using base = score_wrapper<Score>;
  using base::inner_;

public:
  using value_type = typename Score::value_type;

  /// `previous_experts`: M; as many as here unless given.
  explicit gate_residual(Score inner, std::size_t previous_experts)
      : base(std::move(inner)), residual_weight_(this->size(), previous_experts) {
    require(previous_experts >= 1, "gate_residual from a layer of ", previous_experts,
            " experts: there must be at least 1");
  }
  explicit gate_residual(Score inner) : base(std::move(inner)), residual_weight_(this->size(), this->size()) {}
  gate_residual(std::size_t d_model, std::size_t experts) : gate_residual(Score(d_model, experts)) {}

  [[nodiscard]] matrix_view<value_type> residual_weight() noexcept { return residual_weight_; }
  [[nodiscard]] matrix_view<const value_type> residual_weight() const noexcept { return residual_weight_; }

  void lay_out(std::pmr::memory_resource* memory, std::size_t tokens) const {
    routing::lay_out_part(inner_, memory, tokens);
    static_cast<void>(carried_logits(memory, tokens));
    matrix<value_type>(memory).resize_for_overwrite(tokens, residual_weight_.cols()); // previous_logits
  }

  template <execution_context Context>
  void forward(const Context& ctx, matrix_view<const value_type> x, router_trace<value_type>& trace) const {
    const router_trace<value_type>* previous = trace.inputs().previous;
    if (previous == nullptr) {
      inner_.forward(ctx, x, trace);
      return;
    }
    require(previous != &trace, "the previous layer's trace is the trace of this pass: give each layer its own tape");
    require(previous->tokens() == x.rows() && previous->expert_count() == residual_weight_.cols(),
            "the previous layer's logits are ", previous->tokens(), " x ", previous->expert_count(), ", needed are ",
            x.rows(), " x ", residual_weight_.cols());
    inner_.forward(ctx, x, trace);
    auto carried = carried_logits(&ctx.workspace(), x.rows());
    matrix<value_type> memory(&ctx.workspace());
    detail::project(ctx, previous_logits(ctx, trace, memory), residual_weight(), carried.view());
    hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) {
      for (std::size_t i = 0; i < this->size(); ++i)
        trace.logits()(t, i) += carried(t, i);
    });
  }

  template <execution_context Context>
  void backward(const Context& ctx, matrix_view<const value_type> x, const router_trace<value_type>& trace,
                matrix_view<const value_type> d_logits, matrix_view<value_type> dx, gate_residual& gradients) const {
    router_trace<value_type>* previous = trace.inputs().previous;
    if (previous != nullptr)
      require(previous->tokens() == x.rows() && previous->d_logits().rows() == x.rows(),
              "the previous layer's trace has gradient sinks for ", previous->d_logits().rows(), " of ", x.rows(),
              " tokens: run its forward pass with a recording tape, on the same batch");
    inner_.backward(ctx, x, trace, d_logits, dx, gradients.inner_);
    if (previous != nullptr) {
      matrix<value_type> memory(&ctx.workspace());
      detail::project_backward(ctx, previous_logits(ctx, trace, memory), residual_weight(), d_logits,
                               previous->d_logits(), gradients.residual_weight());
    }
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) const { hmoe::detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    inner_.visit_parameters(visit);
    visit(parameter_info{"router.residual_weight"}, residual_weight());
  }
  void initialize(seed key, std::uint64_t stream, const initialization& options) {
    inner_.initialize(key, stream, options);
    fill_normal(vector_view<value_type>(residual_weight_.data(), residual_weight_.size()), options.router_stddev, key,
                stream + 4);
  }

private:
  /// W_g · (logits of the previous layer)
  [[nodiscard]] matrix<value_type> carried_logits(std::pmr::memory_resource* memory, std::size_t tokens) const {
    return matrix<value_type>::for_overwrite(tokens, this->size(), memory);
  }
  /// The previous layer's logits, with 0 for padding and −∞.
  template <execution_context Context>
  [[nodiscard]] static matrix_view<const value_type>
  previous_logits(const Context& ctx, const router_trace<value_type>& trace, matrix<value_type>& memory) {
    const auto logits = std::as_const(*trace.inputs().previous).logits();
    const auto counts = [&](std::size_t t, value_type z) {
      return trace.is_valid(t) && z != -std::numeric_limits<value_type>::infinity();
    };
    bool all_count = true;
    for (std::size_t t = 0; t < logits.rows(); ++t)
      for (const value_type z : logits.row(t))
        all_count = all_count && counts(t, z);
    if (all_count)
      return logits;
    memory.resize_for_overwrite(logits.rows(), logits.cols());
    hmoe::for_each_row(ctx, logits.rows(), [&](std::size_t t) {
      for (std::size_t e = 0; e < logits.cols(); ++e)
        memory(t, e) = counts(t, logits(t, e)) ? logits(t, e) : value_type(0);
    });
    return std::as_const(memory).view();
  }

  matrix<value_type> residual_weight_;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
