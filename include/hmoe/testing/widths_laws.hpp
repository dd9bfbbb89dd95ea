// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/experts/widths.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/testing/report.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <numeric>
#include <vector>

namespace hmoe::testing {

/// What a size strategy promises.
struct widths_options {
  std::size_t narrowest = 1;      ///< no expert is narrower
  std::vector<double> relative{}; ///< [N] what the widths are in proportion to; empty: nothing in particular, or the
                                  ///< strategy's member of that name
};

/// Checks a size strategy, a type that converts to std::vector<std::size_t>: as many widths as its member `count` says,
/// with the sum `total` and in multiples of `multiple`, where it has these; none below the narrowest; in proportion to
/// the relative sizes, rounded to a neighbouring multiple, wider where these are larger; the same every time; and no
/// width shrinks when `total` is doubled.
template <class Strategy>
  requires std::convertible_to<const Strategy&, std::vector<std::size_t>>
[[nodiscard]] report check_widths(const Strategy& strategy, const widths_options& options = {}) {
  report found;
  found.expect_no_throw("works without an exception", [&] {
    const auto widths_of = [](const Strategy& s) { return static_cast<std::vector<std::size_t>>(s); };
    const std::vector<std::size_t> widths = widths_of(strategy);
    if (!found.expect(!widths.empty(), "there is at least one expert", "it gives no widths"))
      return;
    for (std::size_t e = 0; e < widths.size(); ++e)
      found.expect(widths[e] >= options.narrowest, "no expert is narrower than the narrowest", "expert ", e,
                   " has width ", widths[e], ", the narrowest is ", options.narrowest);
    const std::size_t sum = std::accumulate(widths.begin(), widths.end(), std::size_t{0});
    if constexpr (requires { std::size_t{strategy.count}; })
      found.expect(widths.size() == strategy.count, "there are `count` widths", "count is ", strategy.count,
                   ", it gives ", widths.size());
    if constexpr (requires { std::size_t{strategy.total}; })
      found.expect(sum == strategy.total, "the widths sum to `total`", "total is ", strategy.total, ", they sum to ",
                   sum);
    std::size_t multiple = 1;
    if constexpr (requires { std::size_t{strategy.multiple}; })
      multiple = strategy.multiple;
    for (std::size_t e = 0; e < widths.size(); ++e)
      found.expect(widths[e] % multiple == 0, "widths are multiples of `multiple`", "expert ", e, " has width ",
                   widths[e], ", the multiple is ", multiple);
    found.expect(repeatable([&] { return widths_of(strategy); }), "gives the same widths every time",
                 "another call, or one on another thread, gave others");

    std::vector<double> relative = options.relative;
    if constexpr (requires { std::vector<double>{strategy.relative}; })
      relative = relative.empty() ? strategy.relative : relative;
    if (!relative.empty() && found.expect(relative.size() == widths.size(), "there is a width for each relative size",
                                          "of ", relative.size(), " sizes it makes ", widths.size(), " widths")) {
      const double whole = std::accumulate(relative.begin(), relative.end(), 0.0);
      const auto share = [&](std::size_t e) { return static_cast<double>(sum) * relative[e] / whole; };
      const auto unit = static_cast<double>(multiple);
      bool none_below_a_unit = true;
      for (std::size_t e = 0; e < widths.size(); ++e)
        none_below_a_unit = none_below_a_unit && share(e) >= unit;
      for (std::size_t e = 0; e < widths.size(); ++e) {
        const double width = static_cast<double>(widths[e]);
        found.expect(!none_below_a_unit || std::abs(width - share(e)) < unit * (1 - 1e-6),
                     "widths are in proportion to the relative sizes", "expert ", e, " has width ", widths[e],
                     ", its share is ", share(e), " in multiples of ", multiple);
        for (std::size_t other = 0; other < e; ++other)
          found.expect((relative[other] - relative[e]) * (width - static_cast<double>(widths[other])) <= 0,
                       "the larger size gets no smaller width", "experts ", other, " and ", e, " have sizes ",
                       relative[other], " and ", relative[e], " and widths ", widths[other], " and ", widths[e]);
      }
    }
    if constexpr (requires(Strategy s) { s.total = std::size_t{}; }) {
      Strategy doubled = strategy;
      doubled.total = 2 * strategy.total;
      const std::vector<std::size_t> wider = widths_of(doubled);
      for (std::size_t e = 0; e < widths.size() && wider.size() == widths.size(); ++e)
        found.expect(wider[e] >= widths[e], "no width shrinks when total is doubled", "expert ", e, " had width ",
                     widths[e], " of ", strategy.total, " and has ", wider[e], " of twice that");
    }
  });
  return found;
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
