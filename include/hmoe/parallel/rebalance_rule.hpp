// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/parallel/placement.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace hmoe::placement {

/// The bytes of weights that come into the rank that gets most, from one placement to another. What goes out is at most
/// as much per replica that is made.
[[nodiscard]] inline std::size_t bytes_moved(const expert_placement& from, const expert_placement& to,
                                             const problem& p) {
  require(from.ranks() == to.ranks() && from.experts() == to.experts() && from.experts() == p.bytes.size(),
          "bytes_moved: from ", from.experts(), " experts on ", from.ranks(), " ranks to ", to.experts(), " on ",
          to.ranks(), ", with the bytes of ", p.bytes.size());
  std::vector<std::size_t> bytes(to.ranks(), 0);
  for (std::size_t e = 0; e < to.experts(); ++e)
    for (const replica& r : to.replicas(e))
      if (!from.has(r.rank, e))
        bytes[r.rank] += p.bytes[e];
  return std::ranges::max(bytes);
}

/// When another placement pays: its busiest rank must have clearly less to compute, and what that saves while loads
/// stay as they are must be more than the time in which weights travel. So loads that swing a little move nothing.
struct rebalance_rule {
  double least_gain = 0.05;    ///< of the busiest rank's FLOPs, the part that must be saved
  double steps = 1000;         ///< for so many steps the loads, in rows per step, are taken to hold
  double passes = 3;           ///< FLOPs of a step over those of its forward pass: 3 in training
  double state = 3;            ///< bytes that travel over those of weights: 3 with AdamW's moments
  double flops_per_byte = 1e3; ///< what a rank computes in the time in which a byte comes in

  /// hmoe::error for numbers that are negative or not finite.
  void validate() const {
    for (const double value : {least_gain, steps, passes, state, flops_per_byte})
      require(std::isfinite(value) && value >= 0, "rebalance_rule with least_gain = ", least_gain, ", steps = ", steps,
              ", passes = ", passes, ", state = ", state, ", flops_per_byte = ", flops_per_byte,
              ": none may be negative or infinite");
  }
  /// FLOPs that the busiest rank saves in `steps` steps; negative where it gets more.
  [[nodiscard]] double flops_saved(const expert_placement& from, const expert_placement& to, const problem& p) const {
    return (std::ranges::max(flops_by_rank(from, p)) - std::ranges::max(flops_by_rank(to, p))) * passes * steps;
  }
  /// FLOPs that a rank could compute while experts move.
  [[nodiscard]] double flops_lost(const expert_placement& from, const expert_placement& to, const problem& p) const {
    return static_cast<double>(bytes_moved(from, to, p)) * state * flops_per_byte;
  }
  [[nodiscard]] bool pays(const expert_placement& from, const expert_placement& to, const problem& p) const {
    validate();
    const double before = std::ranges::max(flops_by_rank(from, p)), after = std::ranges::max(flops_by_rank(to, p));
    return after < before && before - after >= least_gain * before &&
           flops_saved(from, to, p) > flops_lost(from, to, p);
  }
};

} // namespace hmoe::placement

#include <hmoe/core/macros_on.hpp>
