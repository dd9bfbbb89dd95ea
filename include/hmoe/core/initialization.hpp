// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

namespace hmoe {

/// Standard deviations of freshly initialised weights. Matrices that read the token have 1/√d; the output matrix of
/// an expert of width h has output_gain/√h, so that the variance of an expert's output does not depend on its width.
/// Biases start at zero.
struct initialization {
  double output_gain = 1.0;    ///< 1/√(2·blocks) in a residual network of that many blocks
  double router_stddev = 0.02; ///< small, so that routing starts near uniform
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
