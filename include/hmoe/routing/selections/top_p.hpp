// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/routing/preference.hpp>

#include <cstddef>

namespace hmoe::routing {

/// The shortest prefix of the experts in descending probability whose probabilities sum to p or more, at least one
/// (Huang et al. 2024, arXiv 2403.07652; HMoE uses p = 0.6); ties to the lower id. The sum runs in that order.
/// A constant that is out of range does not compile: constexpr top_p{1.5}.
struct top_p {
  double p;

  HMOE_HOST_DEVICE constexpr top_p(double threshold) noexcept : p(threshold) {
    if (__builtin_is_constant_evaluated() && !(threshold > 0 && threshold <= 1))
      the_p_of_top_p_must_be_above_0_and_at_most_1();
  }
  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("p", p); }
  void validate(std::size_t) const { require(p > 0 && p <= 1, "top_p with p = ", p, ": p must be in (0, 1]"); }

  template <class T>
  HMOE_HOST_DEVICE constexpr std::size_t operator()(vector_view<const T> row,
                                                    vector_view<index_t> chosen) const noexcept {
    index_t last = no_index;
    double sum = 0;
    std::size_t count = 0;
    do {
      chosen[count++] = last = next_preferred(row, last);
      sum += static_cast<double>(row[last]);
    } while (!(sum >= p) && count < row.size()); // "not at least" also walks on over NaN
    return count;
  }

private:
  /// Not constexpr, so that its name stands in the compiler's message.
  HMOE_HOST_DEVICE static void the_p_of_top_p_must_be_above_0_and_at_most_1() noexcept {}
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
