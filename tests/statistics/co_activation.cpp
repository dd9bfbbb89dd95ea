// SPDX-License-Identifier: MIT
#include <hmoe/statistics/co_activation.hpp>

#include "statistics/assignments.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace hmoe::statistics;

namespace {
template <class T> std::vector<T> values(const hmoe::matrix<T>& m) { return {m.data(), m.data() + m.size()}; }
} // namespace

TEST_CASE("pairs of experts that a token selected together") {
  const auto assigned = support::make_assignment({{0, 2}, {0, 1, 2}, {}, {2}});
  auto counts = co_activation(assigned, 4);
  CHECK(values(counts) == std::vector<std::uint64_t>{2, 1, 2, 0, //
                                                     1, 1, 1, 0, //
                                                     2, 1, 3, 0, //
                                                     0, 0, 0, 0});
  add_co_activation(support::make_assignment({{1, 3}}), counts.view());
  CHECK(counts(1, 3) == 1);
  CHECK(counts(3, 1) == 1);
  CHECK(counts(1, 1) == 2);
  CHECK(counts(0, 2) == 2);
}

TEST_CASE("the share of an expert's tokens that another one got too") {
  const auto p = conditional_co_activation(co_activation(support::make_assignment({{0, 2}, {0, 1}, {2}, {2}}), 4));
  CHECK(p(0, 2) == 0.5);
  CHECK(p(2, 0) == doctest::Approx(1.0 / 3).epsilon(1e-14));
  CHECK(p(0, 0) == 1);
  CHECK(p(3, 3) == 0);
}

TEST_CASE("no tokens, and mistakes") {
  CHECK(values(co_activation(support::make_assignment({}), 2)) == std::vector<std::uint64_t>(4));
  CHECK_THROWS_WITH_AS((void)co_activation(support::make_assignment({{0, 2}}), 2), doctest::Contains("expert 2"),
                       hmoe::error);
  hmoe::matrix<std::uint64_t> oblong(2, 3);
  CHECK_THROWS_AS(add_co_activation(support::make_assignment({}), oblong.view()), hmoe::error);
}
