// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>

#include <cmath>
#include <cstddef>

namespace hmoe::routing {

/// Moves the p of top_p so that tokens get `target` experts on average (DTop-p): a proportional-integral controller,
///   error = target − mean,   sum += error,   p = start + proportional·error + integral·sum,
/// kept within [lowest, highest]; the sum rests while p stands at a bound and the error pushes outward. Between steps:
///   router.selection_policy().p = controller.update(tape.trace());
class top_p_controller {
public:
  struct options {
    double target = 2;          ///< experts per token
    double start = 0.6;         ///< p at first
    double proportional = 0.01; ///< change of p per expert too few
    double integral = 0.02;     ///< and per step and expert too few
    double lowest = 0.01;
    double highest = 1;
  };

  /// What it remembers between steps: p, and the sum of errors so far.
  struct state {
    double p, sum;
  };
  /// The state after a step in which a token had `mean` experts on average.
  [[nodiscard]] HMOE_HOST_DEVICE static state next(const options& by, const state& now, double mean) noexcept {
    const double error = by.target - mean, sum = now.sum + error;
    const double wanted = by.start + by.proportional * error + by.integral * sum;
    const double p = wanted < by.lowest ? by.lowest : wanted > by.highest ? by.highest : wanted;
    const bool rests = p != wanted && (error > 0) == (wanted > p); // at a bound, and the error pushes outward
    return {p, rests ? now.sum : sum};
  }

  explicit top_p_controller(const options& choice) : options_(choice), state_{choice.start, 0} {
    require(std::isfinite(choice.target) && choice.target > 0, "top_p_controller with target = ", choice.target,
            ": it must be finite and above 0");
    require(choice.lowest > 0 && choice.lowest <= choice.start && choice.start <= choice.highest && choice.highest <= 1,
            "top_p_controller with lowest = ", choice.lowest, ", start = ", choice.start,
            ", highest = ", choice.highest, ": they must ascend within (0, 1]");
    require(choice.proportional >= 0 && choice.integral >= 0, "top_p_controller with gains ", choice.proportional,
            " and ", choice.integral, ": they must not be negative");
  }

  [[nodiscard]] double p() const noexcept { return state_.p; }
  /// The sum of errors so far: with p all that a checkpoint must keep.
  [[nodiscard]] double sum() const noexcept { return state_.sum; }
  /// Goes on from there.
  void restore(double p, double sum) {
    require(p >= options_.lowest && p <= options_.highest && std::isfinite(sum),
            "top_p_controller cannot go on from p = ", p, " and a sum of ", sum, ": p must be in [", options_.lowest,
            ", ", options_.highest, "], the sum finite");
    state_ = {p, sum};
  }

  /// The next p, given how many experts a token had on average.
  double update(double mean) {
    require(std::isfinite(mean) && mean >= 0, "the mean number of experts per token is ", mean);
    state_ = next(options_, state_, mean);
    return state_.p;
  }
  /// The same from what a pass recorded; without tokens p stays. Shared experts and padding do not count.
  template <class T> double update(const router_trace<T>& trace) {
    double chosen = 0;
    for (const index_t count : trace.tokens_per_expert())
      chosen += count;
    const std::size_t tokens = trace.valid_tokens();
    return tokens == 0 ? state_.p : update(chosen / static_cast<double>(tokens));
  }

private:
  options options_;
  state state_;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
