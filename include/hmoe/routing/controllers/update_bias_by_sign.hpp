// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/controllers/bias_load.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace hmoe::routing {

namespace detail {

/// Where a load stands to the mean of all loads, without rounding the mean.
class mean_comparison {
public:
  HMOE_HOST_DEVICE explicit mean_comparison(vector_view<const double> load) noexcept : load_(load) {
    for (const double value : load) { // whole numbers, as counts of tokens and FLOPs are: an exact sum
      whole_ = whole_ && value >= 0 && value == std::floor(value) && value < largest - static_cast<double>(sum_);
      sum_ += whole_ ? static_cast<std::uint64_t>(value) : 0;
    }
  }
  /// −1, 0 or 1 where load i is below, at or above the mean.
  [[nodiscard]] HMOE_HOST_DEVICE int of(std::size_t i) const noexcept {
    if (whole_) { // n load_i against the sum, as load_i against its quotient and remainder: no product, no overflow
      const std::uint64_t n = load_.size(), quotient = sum_ / n, remainder = sum_ % n;
      const auto own = static_cast<std::uint64_t>(load_[i]);
      return own > quotient ? 1 : own < quotient || remainder != 0 ? -1 : 0;
    }
    double difference = 0; // Σ_j (load_i − load_j), which is exactly 0 for equal loads
    for (const double value : load_)
      difference += load_[i] - value;
    return difference > 0 ? 1 : difference < 0 ? -1 : 0;
  }

private:
  static constexpr double largest = 0x1p63;

  vector_view<const double> load_;
  std::uint64_t sum_ = 0;
  bool whole_ = true;
};

} // namespace detail

/// b_i += rate · sign(mean load − load_i): Wang et al. 2024 (arXiv 2408.15664), DeepSeek-V3 with rate 1e-3. An expert
/// whose load is the mean keeps its bias: loads that are whole numbers are compared exactly. Only the first `moving`
/// experts take part, in the mean too: the others (zero-cost experts, say) keep their bias.
template <class T>
void update_bias_by_sign(vector_view<T> bias, vector_view<const double> load, double rate,
                         std::size_t moving = all_experts) {
  const std::size_t n = detail::moving_experts(bias, load, rate, moving);
  const detail::mean_comparison mean(load.subview(0, n));
  for (std::size_t i = 0; i < n; ++i)
    bias[i] -= static_cast<T>(rate * mean.of(i));
}

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
