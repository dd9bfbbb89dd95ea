// SPDX-License-Identifier: MIT
#include <hmoe/parallel/single.hpp>
#include <hmoe/testing/communicator_laws.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <array>

TEST_CASE("a group of one rank keeps the laws of communicators") {
  CHECK(hmoe::testing::check_communicator(hmoe::communicators::single{}).text() == "");
}

TEST_CASE("a group of one rank refuses what does not fit together") {
  const hmoe::communicators::single self;
  std::array<float, 4> values{};
  const std::array<std::size_t, 1> two{2}, four{4};
  CHECK(support::error_of([&] { self.all_to_all(values, four, std::span(values).first(2), two); }) ==
        "hmoe: all_to_all: rank 0 expects 2 rows of rank 0, which sends 4");
  CHECK(support::error_of([&] { self.all_gather(values, std::span(values).first(3)); }) ==
        "hmoe: all_gather of 4 values on each of 1 ranks into 3: needed are 4");
}
