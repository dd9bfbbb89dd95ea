// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/losses/adaptive_l1.hpp>

#include <array>
#include <concepts>
#include <cstdint>
#include <span>

namespace hmoe::losses {

/// ReMoE's controller of λ: after each step λ is multiplied by `factor` when the share of inactive (token, expert)
/// pairs is below its target 1 − K/N, else divided by it. One controller serves all layers. Per step: loss() for each
/// layer's objective, add(batch) for each layer and micro-batch, then update().
class sparsity_controller {
public:
  sparsity_controller(std::size_t experts, double target_experts, double lambda = 1e-8, double factor = 1.2)
      : target_experts_(target_experts), experts_(static_cast<double>(experts)), lambda_(lambda), factor_(factor) {
    require(target_experts > 0 && target_experts <= experts_, "sparsity_controller: ", target_experts,
            " active experts per token wanted of ", experts, ": the target must be above 0 and at most all");
    require(lambda > 0 && factor > 1, "sparsity_controller: lambda is ", lambda, " and must be above 0, factor is ",
            factor, " and must be above 1");
  }

  /// λ after a step in which `active` of `pairs` pairs were active, given the wanted share of inactive ones.
  [[nodiscard]] HMOE_HOST_DEVICE static double next(double lambda, std::uint64_t active, std::uint64_t pairs,
                                                    double wanted, double factor) noexcept {
    if (pairs == 0)
      return lambda;
    const double sparsity = 1 - static_cast<double>(active) / static_cast<double>(pairs);
    return sparsity < wanted ? lambda * factor : lambda / factor;
  }

  [[nodiscard]] double lambda() const noexcept { return lambda_; }
  /// Goes on from a λ, which between two steps is all that a checkpoint must keep.
  void set_lambda(double lambda) {
    require(lambda > 0, "sparsity_controller: lambda is ", lambda, " and must be above 0");
    lambda_ = lambda;
  }
  /// The loss with the present λ.
  [[nodiscard]] adaptive_l1 loss() const noexcept { return {lambda_, target_experts_, true}; }
  /// Share of the pairs added since the last update whose score is not positive; 0 when there are none.
  [[nodiscard]] double sparsity() const noexcept {
    return pairs_ == 0 ? 0 : 1 - static_cast<double>(active_) / static_cast<double>(pairs_);
  }

  /// Counts the active pairs of a batch. `all_reduce`, any callable on std::span<std::uint64_t>, must replace both
  /// numbers (active pairs, pairs) by their sums over all processes.
  template <class T, class AllReduce> void add(const router_trace<T>& trace, AllReduce&& all_reduce) {
    static_assert(std::invocable<AllReduce&, std::span<std::uint64_t>>,
                  "hmoe::losses::sparsity_controller::add: AllReduce is not callable with std::span<std::uint64_t>: "
                  "pass a function that replaces the two counts by their sums over all processes");
    std::array<std::uint64_t, 2> counts{0, 0};
    for (std::size_t t = 0; t < trace.tokens(); ++t)
      for (std::size_t e = 0; e < trace.expert_count(); ++e)
        if (trace.is_valid(t) && !trace.is_excluded(t, e)) {
          counts[0] += trace.probabilities()(t, e) > 0 ? 1U : 0U;
          ++counts[1];
        }
    all_reduce(std::span<std::uint64_t>(counts));
    active_ += counts[0];
    pairs_ += counts[1];
  }
  template <class T> void add(const router_trace<T>& trace) {
    add(trace, [](std::span<std::uint64_t>) {});
  }

  /// Ends a step: adapts λ to what was added, forgets that, and returns the new λ. Without any token λ stays.
  double update() noexcept {
    lambda_ = next(lambda_, active_, pairs_, 1 - target_experts_ / experts_, factor_);
    active_ = pairs_ = 0;
    return lambda_;
  }

private:
  double target_experts_, experts_, lambda_, factor_;
  std::uint64_t active_ = 0, pairs_ = 0;
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
