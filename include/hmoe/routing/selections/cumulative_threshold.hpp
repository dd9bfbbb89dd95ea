// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/routing/preference.hpp>

#include <cstddef>

namespace hmoe::routing {

/// In descending probability, expert i stays while (Σ_{j ≤ i} p_j) − p_i < limit; at least one (XMoE, Yang et al. 2024,
/// arXiv 2403.18926). The same experts as top_p(limit) but for rounding: here the sum and the difference are rounded to
/// T, as in the authors' code. `most` bounds the count; ties to the lower id. Constants that are out of range do not
/// compile.
struct cumulative_threshold {
  double limit;
  std::size_t most = static_cast<std::size_t>(-1);

  HMOE_HOST_DEVICE constexpr cumulative_threshold(double limit_,
                                                  std::size_t most_ = static_cast<std::size_t>(-1)) noexcept
      : limit(limit_), most(most_) {
    if (__builtin_is_constant_evaluated() && !(limit > 0 && limit <= 1 && most >= 1))
      the_limit_of_cumulative_threshold_must_be_above_0_and_at_most_1_and_most_at_least_1();
  }
  [[nodiscard]] HMOE_HOST_DEVICE constexpr std::size_t max_selected(std::size_t experts) const noexcept {
    return most < experts ? most : experts;
  }
  template <class Visitor> void visit_numbers(Visitor&& visit) const {
    visit("limit", limit);
    visit("most", most);
  }
  void validate(std::size_t) const {
    require(limit > 0 && limit <= 1, "cumulative_threshold with limit = ", limit, ": it must be in (0, 1]");
    require(most >= 1, "cumulative_threshold with at most 0 experts: it must allow at least 1");
  }

  template <class T>
  HMOE_HOST_DEVICE constexpr std::size_t operator()(vector_view<const T> p,
                                                    vector_view<index_t> chosen) const noexcept {
    const std::size_t end = max_selected(p.size());
    index_t next = next_preferred(p, no_index);
    T sum = p[next];
    std::size_t count = 0;
    do {
      chosen[count++] = next;
      if (count == end)
        break;
      next = next_preferred(p, next);
      sum += p[next];
    } while (!(static_cast<double>(sum - p[next]) >= limit));
    return count;
  }

private:
  /// Not constexpr, so that its name stands in the compiler's message.
  HMOE_HOST_DEVICE static void
  the_limit_of_cumulative_threshold_must_be_above_0_and_at_most_1_and_most_at_least_1() noexcept {}
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
