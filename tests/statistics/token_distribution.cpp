// SPDX-License-Identifier: MIT
#include <hmoe/statistics/token_distribution.hpp>

#include "statistics/assignments.hpp"

#include <doctest/doctest.h>

#include <vector>

using hmoe::statistics::add_token_distribution;

TEST_CASE("how often each expert got each token of the vocabulary") {
  hmoe::matrix<std::uint64_t> counts(3, 4);
  const std::vector<hmoe::index_t> ids{3, 0, 3};
  const auto assigned = support::make_assignment({{0, 2}, {2}, {2}});
  add_token_distribution(assigned, ids, counts.view());
  add_token_distribution(support::make_assignment({{1}}), std::vector<hmoe::index_t>{2}, counts.view());
  CHECK(std::vector(counts.data(), counts.data() + 12) ==
        std::vector<std::uint64_t>{0, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 2});
}

TEST_CASE("mistakes are told before anything is counted") {
  hmoe::matrix<std::uint64_t> counts(2, 4);
  const auto add = [&](const std::vector<std::vector<hmoe::index_t>>& experts, const std::vector<hmoe::index_t>& ids) {
    add_token_distribution(support::make_assignment(experts), ids, counts.view());
  };
  CHECK_THROWS_WITH_AS(add({{0}, {1}}, {1}), doctest::Contains("1 token ids for 2 tokens"), hmoe::error);
  CHECK_THROWS_WITH_AS(add({{0}, {1}}, {1, 4}), doctest::Contains("vocabulary of 4"), hmoe::error);
  CHECK_THROWS_WITH_AS(add({{0}, {2}}, {1, 1}), doctest::Contains("expert 2"), hmoe::error);
  CHECK(std::vector(counts.data(), counts.data() + 8) == std::vector<std::uint64_t>(8));
}
