// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <string>
#include <vector>

/// Size strategies: relative sizes turned into absolute hidden widths with an exact sum. Each converts to
/// std::vector<std::size_t>, so it can be written where a bank expects its widths. Sources: arithmetic, geometric and
/// hybrid are the strategies of HMoE (arXiv 2408.10681, section 4).
namespace hmoe::widths {

namespace detail {
/// What an error offers: "low or high", or the one that remains.
[[nodiscard]] inline std::string choice(std::size_t low, std::size_t high) {
  return low == high ? std::to_string(low) : std::to_string(low) + " or " + std::to_string(high);
}
} // namespace detail

/// Widths in proportion to `relative` that are multiples of `multiple` (≥ 1 each) and sum to exactly `total`: the
/// largest-remainder method, ties to the lower expert id. Throws when that cannot be, and says what could.
[[nodiscard]] inline std::vector<std::size_t> apportion(const std::vector<double>& relative, std::size_t total,
                                                        std::size_t multiple = 1) {
  const std::size_t count = relative.size();
  require(count >= 1, "widths for 0 experts: at least 1 is needed");
  require(multiple >= 1, "widths in multiples of 0: the smallest multiple is 1");
  for (std::size_t i = 0; i < count; ++i)
    require(std::isfinite(relative[i]) && relative[i] > 0, "relative width ", i, " is ", relative[i],
            ": it must be finite and above 0");
  require(
      total % multiple == 0 && total / multiple >= count, "widths of ", count, " experts cannot sum to ", total,
      " in multiples of ", multiple, ": possible are ",
      detail::choice(std::max(total / multiple, count) * multiple, std::max(total / multiple + 1, count) * multiple),
      " (multiples of ", multiple, " from ", count * multiple, " on)");

  // An expert whose share is below one unit gets one unit; the others divide the rest in proportion.
  const std::size_t units = total / multiple;
  const auto whole_units = [](double share) { // a share that rounding left just below an integer is that integer
    return static_cast<std::size_t>(share + std::min(share * 1e-12, 1e-6));
  };
  std::vector<std::size_t> result(count, 0);
  std::size_t left = units;
  double scale = 0;
  for (bool settled = false; !settled;) {
    double whole = 0;
    for (std::size_t i = 0; i < count; ++i)
      whole += result[i] == 0 ? relative[i] : 0;
    scale = static_cast<double>(left) / whole;
    require(std::isfinite(scale) && scale > 0, "the relative widths of ", count, " experts sum to ", whole,
            ": scale them so that shares of ", units, " can be computed");
    settled = true;
    for (std::size_t i = 0; i < count; ++i)
      if (result[i] == 0 && whole_units(relative[i] * scale) == 0) {
        result[i] = 1;
        --left;
        settled = false;
      }
  }
  std::vector<double> remainder(count, -1);
  for (std::size_t i = 0; i < count; ++i)
    if (result[i] == 0) {
      result[i] = whole_units(relative[i] * scale);
      remainder[i] = relative[i] * scale - static_cast<double>(result[i]);
    }
  for (std::size_t sum = std::accumulate(result.begin(), result.end(), std::size_t{0}); sum < units; ++sum) {
    std::size_t largest = 0;
    for (std::size_t i = 1; i < count; ++i)
      if (remainder[i] > remainder[largest] + 1e-9)
        largest = i;
    ++result[largest];
    remainder[largest] -= 1;
  }
  for (std::size_t& width : result)
    width *= multiple;
  return result;
}

/// Given relative sizes, e.g. {1, 1, 2, 4}.
struct list {
  std::vector<double> relative;
  std::size_t total = 0;
  std::size_t multiple = 1;
  operator std::vector<std::size_t>() const { return apportion(relative, total, multiple); }
};

/// All experts alike; `total` must be divisible.
struct uniform {
  std::size_t count = 0;
  std::size_t total = 0;
  operator std::vector<std::size_t>() const {
    require(count >= 1, "widths for 0 experts: at least 1 is needed");
    require(total >= count && total % count == 0, count, " equal widths cannot sum to ", total, ": possible are ",
            detail::choice(std::max<std::size_t>(total / count, 1) * count, (total / count + 1) * count));
    return std::vector<std::size_t>(count, total / count);
  }
};

/// Relative sizes from `first` to `last` in equal steps; the paper uses 9, 11, …, 23.
struct arithmetic {
  std::size_t count = 0;
  std::size_t total = 0;
  double first = 9;
  double last = 23;
  std::size_t multiple = 1;
  operator std::vector<std::size_t>() const {
    std::vector<double> relative(count, first);
    for (std::size_t i = 1; i < count; ++i)
      relative[i] = first + (last - first) * static_cast<double>(i) / static_cast<double>(count - 1);
    return apportion(relative, total, multiple);
  }
};

/// Relative sizes 1, ratio, ratio², …; the paper uses 1, 2, 4, …, 128.
struct geometric {
  std::size_t count = 0;
  std::size_t total = 0;
  double ratio = 2;
  std::size_t multiple = 1;
  operator std::vector<std::size_t>() const {
    std::vector<double> relative(count);
    for (std::size_t i = 0; i < count; ++i)
      relative[i] = std::pow(ratio, static_cast<double>(i));
    return apportion(relative, total, multiple);
  }
};

/// Half of the experts of size 1, a quarter of size 2, a quarter of size 4: the paper's 1, 1, 1, 1, 2, 2, 4, 4.
struct hybrid {
  std::size_t count = 8;
  std::size_t total = 0;
  std::size_t multiple = 1;
  operator std::vector<std::size_t>() const {
    require(count >= 4 && count % 4 == 0, "the hybrid sizes need a number of experts divisible by 4, not ", count,
            ": possible are ", detail::choice(std::max<std::size_t>(count / 4, 1) * 4, (count / 4 + 1) * 4));
    std::vector<double> relative(count, 1);
    for (std::size_t i = count / 2; i < count; ++i)
      relative[i] = i < count / 2 + count / 4 ? 2 : 4;
    return apportion(relative, total, multiple);
  }
};

/// Absolute widths known at compile time, for constexpr tables and static checks; the same bank as with a list.
///   using sizes = widths::fixed<864, 1056, 1248>;
///   static_assert(sizes::most_activated_parameters(768, 2) < 6'000'000);
template <std::size_t... Widths> struct fixed {
  static_assert(sizeof...(Widths) >= 1, "hmoe::widths::fixed: Widths is empty: give the width of at least one expert");
  static constexpr std::size_t count = sizeof...(Widths);
  static constexpr std::size_t total = (Widths + ...);
  static constexpr std::array<std::size_t, count> values{Widths...};
  /// [count + 1] where each expert's hidden values begin when they lie one expert behind the other.
  static constexpr std::array<std::size_t, count + 1> offsets = [] {
    std::array<std::size_t, count + 1> result{};
    for (std::size_t e = 0; e < count; ++e)
      result[e + 1] = result[e] + values[e];
    return result;
  }();

  /// Weights of expert e without biases: (lanes + 1)·d·h_e, two lanes for a glu_bank and one for an mlp_bank.
  [[nodiscard]] static constexpr std::size_t parameters(std::size_t e, std::size_t d_model, std::size_t lanes = 2) {
    return (lanes + 1) * d_model * values[e];
  }
  /// Forward FLOPs of a row of expert e; a multiply-add is two.
  [[nodiscard]] static constexpr double flops_per_row(std::size_t e, std::size_t d_model, std::size_t lanes = 2) {
    return 2.0 * static_cast<double>(parameters(e, d_model, lanes));
  }
  [[nodiscard]] static constexpr std::size_t total_parameters(std::size_t d_model, std::size_t lanes = 2) {
    return (lanes + 1) * d_model * total;
  }
  /// Weights of the k widest experts: what a token activates at most, and of the k narrowest, at least.
  [[nodiscard]] static constexpr std::size_t most_activated_parameters(std::size_t d_model, std::size_t k,
                                                                       std::size_t lanes = 2) {
    return (lanes + 1) * d_model * sum_of(k, [](std::size_t a, std::size_t b) { return a > b; });
  }
  [[nodiscard]] static constexpr std::size_t least_activated_parameters(std::size_t d_model, std::size_t k,
                                                                        std::size_t lanes = 2) {
    return (lanes + 1) * d_model * sum_of(k, [](std::size_t a, std::size_t b) { return a < b; });
  }

  operator std::vector<std::size_t>() const { return {Widths...}; }

private:
  template <class First> [[nodiscard]] static constexpr std::size_t sum_of(std::size_t k, First first) {
    auto sorted = values;
    std::sort(sorted.begin(), sorted.end(), first);
    std::size_t sum = 0;
    for (std::size_t e = 0; e < k; ++e)
      sum += sorted.at(e); // no constant where k is above count
    return sum;
  }
};

} // namespace hmoe::widths

#include <hmoe/core/macros_on.hpp>
