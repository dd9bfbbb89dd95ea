// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

namespace benchmarks {

/// The experts of a released model's layer: `experts` GLUs of one width.
struct pruned_shape {
  std::string_view name;
  std::size_t experts, width, d_model, k;
  bool gpt_oss = false; ///< with biases and its clamped gate; the others have SwiGLU without biases
};

inline constexpr std::array<pruned_shape, 5> pruned_shapes{{
    {"qwen3_30b_a3b", 128, 768, 2048, 8},
    {"olmoe", 64, 1024, 2048, 8},
    {"gpt_oss_20b", 32, 2880, 2880, 4, true},
    {"deepseek_v2_lite", 64, 1408, 2048, 6},
    {"tiny", 16, 96, 256, 4}, // for a test
}};

namespace detail {

/// The value that a share p of a standard normal distribution is below, by bisection.
inline double normal_quantile(double p) {
  double low = -8, high = 8;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
  }
  return (low + high) / 2;
}

/// Adds to or takes from the widths, `step` at a time and one expert after another, until they add up to `total`.
/// Widths at 0 and at the largest stay.
inline void correct_sum(std::vector<std::size_t>& widths, std::size_t total, std::size_t largest, std::size_t step) {
  for (std::size_t e = 0, idle = 0; idle < widths.size(); e = (e + 1) % widths.size()) {
    const std::size_t sum = std::accumulate(widths.begin(), widths.end(), std::size_t{0});
    const bool inside = widths[e] > step && widths[e] + step < largest;
    if (inside && sum + step <= total)
      widths[e] += step;
    else if (inside && sum >= total + step)
      widths[e] -= step;
    else {
      ++idle;
      continue;
    }
    idle = 0;
  }
}

} // namespace detail

/// Widths as they are left where neurons are ranked over all experts and half of them stay: from 0 to the full one. Of
/// N experts, expert number π(i) has
///   h = round(width · clamp(½ + 0.3 · z_i, 0, 1)),  z_i the quantile of the standard normal at (i + ½) / N,
/// π the order of a std::mt19937_64 with seed 7: about 1 in 20 experts has width 0 and as many the full one. Then
/// single neurons are added or taken so that exactly N · width / 2 are left. `multiple`: widths are rounded to
/// multiples of it, but for the full one.
[[nodiscard]] inline std::vector<std::size_t> pruned_widths(const pruned_shape& shape, std::size_t multiple = 1) {
  const std::size_t n = shape.experts, total = n * shape.width / 2;
  std::vector<std::size_t> order(n), widths(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::mt19937_64 random{7};
  for (std::size_t i = n; i > 1; --i)
    std::swap(order[i - 1], order[static_cast<std::size_t>(random() % i)]);
  for (std::size_t i = 0; i < n; ++i) {
    const double z = detail::normal_quantile((static_cast<double>(i) + 0.5) / static_cast<double>(n));
    const double share = std::clamp(0.5 + 0.3 * z, 0.0, 1.0), m = static_cast<double>(multiple);
    const auto h = static_cast<std::size_t>(std::lround(share * static_cast<double>(shape.width) / m)) * multiple;
    widths[order[i]] = share == 1.0 ? shape.width : std::min(h, shape.width);
  }
  detail::correct_sum(widths, total, shape.width, multiple);
  return widths;
}

} // namespace benchmarks
