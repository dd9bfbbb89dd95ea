// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace hmoe::training {

/// A learning-rate schedule is called with the step (from 0) and the progress in [0, 1], the consumed share of the
/// budget. Progress may be measured in steps, tokens or FLOPs; where variants differ in cost per token, FLOPs are fair.

/// Linear from peak/warmup_steps up to peak over the first warmup_steps steps, then peak.
struct warmup_constant {
  double peak;
  std::uint64_t warmup_steps = 0;

  [[nodiscard]] double operator()(std::uint64_t step, double /*progress*/) const noexcept {
    return step < warmup_steps ? peak * static_cast<double>(step + 1) / static_cast<double>(warmup_steps) : peak;
  }
};

/// The same warm-up, times a cosine from 1 at progress 0 to `floor` at progress 1.
struct warmup_cosine {
  double peak;
  std::uint64_t warmup_steps = 0;
  double floor = 0.1; ///< as a fraction of peak

  [[nodiscard]] double operator()(std::uint64_t step, double progress) const {
    require(progress >= 0, "a schedule needs a progress of at least 0, given is ", progress);
    const double done = std::min(progress, 1.0);
    const double cosine = floor + (1 - floor) * 0.5 * (1 + std::cos(std::numbers::pi * done));
    return warmup_constant{peak, warmup_steps}(step, progress) * cosine;
  }
};

} // namespace hmoe::training

#include <hmoe/core/macros_on.hpp>
