// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/tuned_table.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

using namespace hmoe::dispatch;

TEST_CASE("the nearest number of tokens by ratio decides") {
  const tuned_table table{
      "any", {}, {{1, strategy::per_token, strategy::sorted}, {16, strategy::looped, strategy::scattered}}};
  table.validate();
  CHECK(table.pick(0, false) == strategy::per_token);
  CHECK(table.pick(3, false) == strategy::per_token);
  CHECK(table.pick(5, false) == strategy::looped);
  CHECK(table.pick(5, true) == strategy::scattered);
  CHECK(table.pick(4096, true) == strategy::scattered);
}

TEST_CASE("tables that are out of order, or pick dense, are refused") {
  CHECK(support::error_of([] { tuned_table{"", {}, {{0, strategy::sorted, strategy::sorted}}}.validate(); }) ==
        "hmoe: a tuned table has 0 tokens in line 0, which do not ascend from 1");
  CHECK(support::error_of([] {
          tuned_table{"", {}, {{4, strategy::sorted, strategy::sorted}, {4, strategy::sorted, strategy::sorted}}}
              .validate();
        }) == "hmoe: a tuned table has 4 tokens in line 1, which do not ascend from 1");
  CHECK(support::error_of([] { tuned_table{"", {}, {{4, strategy::dense, strategy::sorted}}}.validate(); }) ==
        "hmoe: a tuned table picks dense for 4 tokens: automatic cannot take it");
}
