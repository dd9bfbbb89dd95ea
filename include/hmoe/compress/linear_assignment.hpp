// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace hmoe::compress {

/// The column of each row of gain [n×m], n ≤ m, each column at most once, so that Σ gain(r, column of r) is largest.
/// Shortest augmenting paths (Kuhn–Munkres): time n² m, memory 3 m beside the matrix. hmoe::error for more rows than
/// columns and gains that are not finite.
[[nodiscard]] inline std::vector<std::size_t> linear_assignment(matrix_view<const double> gain) {
  const std::size_t n = gain.rows(), m = gain.cols();
  require(n <= m, "an assignment of ", n, " rows to ", m, " columns: each row needs a column of its own");
  for (std::size_t r = 0; r < n; ++r)
    for (std::size_t c = 0; c < m; ++c)
      require(std::isfinite(gain(r, c)), "the gain of row ", r, " and column ", c, " is ", gain(r, c));
  // Costs are −gain; potentials keep −gain(r, c) − u(r) − v(c) ≥ 0, with equality on chosen pairs. Row n and column m
  // stand for "none".
  std::vector<double> u(n + 1), v(m + 1), slack(m + 1);
  std::vector<std::size_t> row_of(m + 1, n), before(m + 1);
  std::vector<char> seen(m + 1);
  for (std::size_t r = 0; r < n; ++r) {
    slack.assign(m + 1, std::numeric_limits<double>::infinity());
    seen.assign(m + 1, 0);
    std::size_t column = m;
    row_of[m] = r;
    do {
      seen[column] = 1;
      const std::size_t row = row_of[column];
      std::size_t next = m;
      double step = std::numeric_limits<double>::infinity();
      for (std::size_t c = 0; c < m; ++c) {
        if (seen[c] != 0)
          continue;
        const double reduced = -gain(row, c) - u[row] - v[c];
        if (reduced < slack[c]) {
          slack[c] = reduced;
          before[c] = column;
        }
        if (slack[c] < step) {
          step = slack[c];
          next = c;
        }
      }
      for (std::size_t c = 0; c <= m; ++c)
        if (seen[c] != 0) {
          u[row_of[c]] += step;
          v[c] -= step;
        } else {
          slack[c] -= step;
        }
      column = next;
    } while (row_of[column] != n);
    for (; column != m; column = before[column])
      row_of[column] = row_of[before[column]];
  }
  std::vector<std::size_t> column_of(n);
  for (std::size_t c = 0; c < m; ++c)
    if (row_of[c] != n)
      column_of[row_of[c]] = c;
  return column_of;
}

} // namespace hmoe::compress

#include <hmoe/core/macros_on.hpp>
