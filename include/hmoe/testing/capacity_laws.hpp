// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/dispatch/capacity.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/testing/report.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace hmoe::testing {

/// What a capacity promises.
struct capacity_options {
  bool treats_experts_alike = true; ///< renumbering the experts renumbers their limits
};

namespace detail {

/// A batch that a capacity is asked about.
struct capacity_batch {
  std::size_t tokens = 0;
  std::vector<std::size_t> widths, rows;

  [[nodiscard]] std::size_t entries() const {
    std::size_t sum = 0;
    for (const std::size_t count : rows)
      sum += count;
    return sum;
  }
  /// The batch so many times over.
  [[nodiscard]] capacity_batch times(std::size_t factor) const {
    capacity_batch larger = *this;
    larger.tokens *= factor;
    for (std::size_t& count : larger.rows)
      count *= factor;
    return larger;
  }
  [[nodiscard]] capacity_batch reversed() const {
    return {tokens, {widths.rbegin(), widths.rend()}, {rows.rbegin(), rows.rend()}};
  }
};

template <class Capacity>
std::vector<std::size_t> limits_of(const Capacity& capacity, const capacity_batch& batch, report& found) {
  constexpr std::size_t unwritten = capacity::unlimited - 1;
  guarded_array<std::size_t> limits(batch.widths.size(), unwritten);
  const std::vector<std::size_t> widths = batch.widths, rows = batch.rows;
  capacity.limits(capacity::demand{batch.tokens, batch.entries(), vector_view<const std::size_t>(widths),
                                   vector_view<const std::size_t>(rows)},
                  limits.view());
  found.expect(limits.margins_intact(), "writes only one limit for each expert", "memory beside the ", widths.size(),
               " limits changed");
  const auto values = limits.values();
  const auto missing = std::ranges::find(values, unwritten);
  found.expect(missing == values.end(), "writes the limit of every expert", "not that of expert ",
               missing - values.begin(), " of ", widths.size());
  return values;
}

} // namespace detail

/// Checks a capacity with 1 to 7 experts of equal, unequal and (beside others) zero widths and 0 to 1,000 tokens: it
/// writes every limit and nothing else; limits do not shrink when a batch of the same composition grows, nor when
/// every token asks for every expert; the same batch gets the same limits every time.
template <capacity_policy Capacity>
[[nodiscard]] report check_capacity(const Capacity& capacity, const capacity_options& options = {}) {
  report found;
  found.expect_no_throw("works without an exception", [&] {
    if constexpr (requires { capacity.validate(); })
      capacity.validate();
    for (const std::vector<std::size_t>& widths :
         {std::vector<std::size_t>{5}, {8, 8, 8, 8}, {3, 0, 5, 1}, {1, 2, 3, 4, 5, 6, 7}})
      for (const std::size_t tokens : {0U, 1U, 3U, 64U, 1000U}) {
        detail::capacity_batch batch{tokens, widths, std::vector<std::size_t>(widths.size())};
        for (std::size_t t = 0; t < tokens; ++t)
          for (std::size_t e = 0; e < widths.size(); ++e)
            batch.rows[e] += (t * t + 3 * e) % 5 < 2 ? 1 : 0; // uneven, some tokens without an expert
        const auto limits = detail::limits_of(capacity, batch, found);
        for (const std::size_t factor : {2U, 3U, 10U}) {
          const auto larger = detail::limits_of(capacity, batch.times(factor), found);
          for (std::size_t e = 0; e < widths.size(); ++e)
            found.expect(larger[e] >= std::min(limits[e], tokens), "limits do not shrink when the batch grows",
                         "expert ", e, " of ", widths.size(), " may take ", limits[e], " rows of ", tokens,
                         " tokens and ", larger[e], " of ", factor, " times as many");
        }
        const auto fullest =
            detail::limits_of(capacity, {tokens, widths, std::vector<std::size_t>(widths.size(), tokens)}, found);
        for (std::size_t e = 0; e < widths.size(); ++e)
          found.expect(fullest[e] >= std::min(limits[e], tokens), "limits do not shrink when more tokens ask",
                       "expert ", e, " of ", widths.size(), " may take ", limits[e], " rows of ", tokens,
                       " tokens, and ", fullest[e], " when all ask for all experts");
        auto back = detail::limits_of(capacity, batch.reversed(), found);
        std::reverse(back.begin(), back.end());
        found.expect(!options.treats_experts_alike || back == limits, "treats experts alike", "renumbering ",
                     widths.size(), " experts changed a limit for ", tokens, " tokens");
        found.expect(repeatable([&] {
                       report ignored;
                       return detail::limits_of(capacity, batch, ignored);
                     }),
                     "gives the same limits every time", "the same batch again, or on another thread, got others");
      }
  });
  return found;
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
