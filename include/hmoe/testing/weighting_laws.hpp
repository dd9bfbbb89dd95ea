// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/routing/score_functions/softmax.hpp>
#include <hmoe/routing/weighting.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/testing/report.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace hmoe::testing {

/// What a weighting promises.
struct weighting_options {
  bool non_negative = true;
  bool sums_to_one = false; ///< the weights of a token add up to 1
  double tolerance = 0;     ///< of gradients; 0 means gradient_tolerance<T>
  std::size_t rows = 20;    ///< how many random rows to try
};

/// Checks a weighting over random rows of N logits with softmax probabilities, and over choices of one, some, all and
/// no experts: sign and sum of the weights, and that backward adds the derivatives by logits and by probabilities
/// (which it must treat as independent inputs) to what is in its sinks.
template <class T, weighting<T> Weighting>
[[nodiscard]] report check_weighting(const Weighting& subject, std::size_t experts,
                                     const weighting_options& options = {}) {
  report found;
  guarded_matrix<T> scratch(1, routing::weighting_scratch(subject, experts));
  const double tolerance = options.tolerance > 0 ? options.tolerance : gradient_tolerance<T>;
  const auto weights = [&](const std::vector<T>& logits, const std::vector<T>& p, const std::vector<index_t>& chosen) {
    guarded_matrix<T> w(1, chosen.size());
    routing::weigh(subject, vector_view<const T>(logits), vector_view<const T>(p), vector_view<const index_t>(chosen),
                   w.view().row(0), scratch.view().row(0));
    found.expect(w.margins_intact() && scratch.margins_intact(),
                 "forward writes only the weights of the chosen experts, and its scratch", "memory beside the ",
                 chosen.size(), " weights, or beside the scratch, changed");
    return w.values();
  };
  const auto check = [&](std::size_t row, const std::vector<index_t>& chosen) {
    std::vector<T> logits = random_values<T>(experts, 300 + row), p(experts);
    routing::softmax{}.forward(vector_view<const T>(logits), vector_view<T>(p));
    const std::vector<T> w = weights(logits, p, chosen);
    if (!found.expect(all_finite(w), "forward writes every weight", "a weight of ", chosen.size(),
                      " chosen experts is not finite"))
      return;
    if (chosen.empty())
      return;
    for (std::size_t i = 0; i < w.size() && options.non_negative; ++i)
      found.expect(w[i] >= T(0), "weights are not negative", "expert ", chosen[i], " has weight ", w[i]);
    const double sum = std::accumulate(w.begin(), w.end(), 0.0);
    if (options.sums_to_one)
      found.expect(std::abs(sum - 1) <= rounding_tolerance<T>, "the weights of a token add up to 1", "those of ",
                   w.size(), " experts add up to ", sum);

    const std::vector<T> dw = random_values<T>(w.size(), 600 + row);
    guarded_matrix<T> d_logits(1, experts), d_p(1, experts);
    const auto backward = [&](T start) {
      d_logits.fill(start);
      d_p.fill(start);
      routing::weigh_backward(subject, vector_view<const T>(logits), vector_view<const T>(p),
                              vector_view<const index_t>(chosen), vector_view<const T>(w), vector_view<const T>(dw),
                              d_logits.view().row(0), d_p.view().row(0), scratch.view().row(0));
      std::vector<T> both = d_logits.values();
      const std::vector<T> second = d_p.values();
      both.insert(both.end(), second.begin(), second.end());
      return both;
    };
    const std::vector<T> gradient = backward(T(0)), on_top = backward(T(1));
    found.expect(d_logits.margins_intact() && d_p.margins_intact(), "backward writes only within the row",
                 "memory beside the ", experts, " experts changed");
    std::vector<T> expected = gradient;
    for (T& value : expected)
      value += 1;
    found.expect(relative_error(on_top, expected) <= rounding_tolerance<T>, "backward adds to its sinks",
                 "what was in them before is lost");

    const auto loss = [&] { return inner_product(weights(logits, p, chosen), dw); };
    std::vector<double> numeric = finite_differences(vector_view<T>(logits), loss);
    const std::vector<double> by_p = finite_differences(vector_view<T>(p), loss);
    numeric.insert(numeric.end(), by_p.begin(), by_p.end());
    const double error = relative_error(gradient, numeric);
    if (!(error <= tolerance))
      found.expect(false, "backward is the derivative of forward", "with ", chosen.size(), " of ", experts,
                   " experts it differs from finite differences by logits (row 0) and probabilities (row 1) ",
                   largest_difference(gradient, numeric, experts), ", which is ", error,
                   " of the largest value, allowed are ", tolerance);
  };

  found.expect_no_throw("works without an exception", [&] {
    for (std::size_t row = 0; row < options.rows; ++row) {
      std::vector<index_t> chosen;
      const std::vector<double> coin = random_values<double>(experts, 900 + row);
      for (std::size_t e = 0; e < experts; ++e)
        if (row == 1 || (row == 2 && e + 1 == experts) || (row > 2 && coin[e] > 0)) // row 0: none, 1: all, 2: one
          chosen.push_back(static_cast<index_t>(e));
      check(row, chosen);
    }
    const std::vector<T> logits = random_values<T>(experts, 300), p(experts, T(1) / static_cast<T>(experts));
    std::vector<index_t> all(experts);
    std::iota(all.begin(), all.end(), index_t{0});
    found.expect(repeatable([&] {
                   guarded_matrix<T> w(1, experts), own_scratch(1, scratch.view().cols()); // one for each thread
                   routing::weigh(subject, vector_view<const T>(logits), vector_view<const T>(p),
                                  vector_view<const index_t>(all), w.view().row(0), own_scratch.view().row(0));
                   return w.values();
                 }),
                 "gives the same bits every time", "the same row again, or on another thread, gave other weights");
  });
  return found;
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
