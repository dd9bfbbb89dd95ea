// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/context.hpp>
#include <hmoe/backends/cuda/device_value.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/losses/sparsity_controller.hpp>
#include <hmoe/routing/controllers/top_p_controller.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace hmoe::backends {

/// routing::top_p_controller on the device: cuda_layer::update_top_p moves the p of a router with top_p after a step,
/// without the host.
class cuda_top_p_controller {
public:
  using options = routing::top_p_controller::options;

  /// Begins with the layer's p set to `start` by the first update.
  cuda_top_p_controller(const cuda_context& ctx, const options& choice)
      : options_(choice), state_(ctx.executor(), {routing::top_p_controller(choice).p(), 0}) {
  } // the host's controller checks the options

  /// The host's controller in the state that this one has; waits for the stream.
  [[nodiscard]] routing::top_p_controller read(const cuda_context& ctx) const {
    const auto state = state_.read(ctx.executor());
    routing::top_p_controller host(options_);
    host.restore(state.p, state.sum);
    return host;
  }
  /// Goes on from there.
  void restore(const cuda_context& ctx, double p, double sum) {
    routing::top_p_controller(options_).restore(p, sum); // checks
    state_.set(ctx.executor(), {p, sum});
  }

  // What the layer asks for.
  [[nodiscard]] const options& choice() const noexcept { return options_; }
  [[nodiscard]] routing::top_p_controller::state* state() noexcept { return state_.data(); }

private:
  options options_;
  device_value<routing::top_p_controller::state> state_;
};

namespace cuda_detail {
struct sparsity_state {
  double lambda;
  unsigned long long active, pairs; ///< added since the last update
};
} // namespace cuda_detail

/// losses::adaptive_l1 with the λ that a cuda_sparsity_controller has on the device when the loss is evaluated. Its
/// value is λ L, its coefficient 1. For cuda_layer::evaluate only.
struct controlled_l1 {
  const double* lambda; ///< on the device
  double target_experts;
  static constexpr double coefficient = 1;
  static constexpr std::string_view name = "adaptive_l1";

  template <class T> double evaluate(routed_batch<T>&) const {
    fail("controlled_l1 has its lambda on the device: on the host take losses::sparsity_controller and its loss()");
  }
};

/// losses::sparsity_controller on the device. Per step: objective{controller.loss(), …} evaluated for each layer,
/// layer.add_sparsity(gpu, tape, controller) for each layer and micro-batch, then layer.update_lambda(gpu, controller)
/// once.
class cuda_sparsity_controller {
public:
  cuda_sparsity_controller(const cuda_context& ctx, std::size_t experts, double target_experts, double lambda = 1e-8,
                           double factor = 1.2)
      : target_experts_(target_experts), experts_(static_cast<double>(experts)), factor_(factor),
        state_(ctx.executor(), {losses::sparsity_controller(experts, target_experts, lambda, factor).lambda(), 0, 0}) {}

  [[nodiscard]] controlled_l1 loss() const noexcept { return {&state_.data()->lambda, target_experts_}; }
  /// λ; waits for the stream.
  [[nodiscard]] double read_lambda(const cuda_context& ctx) const { return state_.read(ctx.executor()).lambda; }
  /// Goes on from a λ, which between two steps is all that a checkpoint must keep.
  void set_lambda(const cuda_context& ctx, double lambda) {
    require(lambda > 0, "sparsity_controller: lambda is ", lambda, " and must be above 0");
    state_.set(ctx.executor(), {lambda, 0, 0});
  }

  // What the layer asks for.
  [[nodiscard]] cuda_detail::sparsity_state* state() noexcept { return state_.data(); }
  [[nodiscard]] double wanted_sparsity() const noexcept { return 1 - target_experts_ / experts_; }
  [[nodiscard]] double factor() const noexcept { return factor_; }

private:
  double target_experts_, experts_, factor_;
  device_value<cuda_detail::sparsity_state> state_;
};

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
