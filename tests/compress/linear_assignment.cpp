// SPDX-License-Identifier: MIT
#include <hmoe/compress/linear_assignment.hpp>
#include <hmoe/core/matrix.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

using hmoe::compress::linear_assignment;

TEST_CASE("the assignment has the largest sum of all assignments") {
  support::random_source random(31);
  for (std::size_t n = 0; n <= 5; ++n)
    for (std::size_t m = n; m <= 6; ++m)
      for (int trial = 0; trial < 8; ++trial) {
        auto gain = support::random_matrix<double>(random, n, m);
        if (trial == 0 && n > 0) // ties
          std::fill(gain.data(), gain.data() + gain.size(), 1.0);
        std::vector<std::size_t> columns(m);
        std::iota(columns.begin(), columns.end(), std::size_t{0});
        double best = -std::numeric_limits<double>::infinity();
        do {
          double sum = 0;
          for (std::size_t r = 0; r < n; ++r)
            sum += gain(r, columns[r]);
          best = std::max(best, sum);
        } while (std::next_permutation(columns.begin(), columns.end()));
        std::vector<std::size_t> chosen = linear_assignment(gain);
        double sum = 0;
        for (std::size_t r = 0; r < n; ++r)
          sum += gain(r, chosen[r]);
        CHECK(sum == doctest::Approx(best).epsilon(1e-12));
        std::ranges::sort(chosen);
        CHECK(std::ranges::adjacent_find(chosen) == chosen.end());
      }
  CHECK(support::error_of([] { (void)linear_assignment(hmoe::matrix<double>(3, 2)); }) ==
        "hmoe: an assignment of 3 rows to 2 columns: each row needs a column of its own");
  hmoe::matrix<double> bad(1, 1);
  bad(0, 0) = std::numeric_limits<double>::infinity();
  CHECK(support::error_of([&] { (void)linear_assignment(bad); }) == "hmoe: the gain of row 0 and column 0 is inf");
}
