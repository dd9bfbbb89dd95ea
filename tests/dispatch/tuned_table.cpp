// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/tuned_table.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

using namespace hmoe::dispatch;

namespace {
std::string refusal(std::vector<tuned_table::choice> choices) {
  return support::error_of([&] { tuned_table{"", {}, std::move(choices)}.validate(); });
}
} // namespace

TEST_CASE("the nearest number of tokens by ratio decides, then the nearest number of effective experts") {
  const tuned_table table{"any",
                          {},
                          {{1, 2, strategy::per_token, strategy::sorted},
                           {16, 2, strategy::blocked, strategy::sorted},
                           {16, 8, strategy::looped, strategy::scattered}}};
  table.validate();
  CHECK(table.pick(0, 0, false) == strategy::per_token);
  CHECK(table.pick(3, 8, false) == strategy::per_token);
  CHECK(table.pick(5, 8, false) == strategy::looped);
  CHECK(table.pick(5, 8, true) == strategy::scattered);
  CHECK(table.pick(4096, 4.1, true) == strategy::scattered);
  CHECK(table.pick(4096, 3.9, false) == strategy::blocked);
  CHECK(table.pick(4096, 1, true) == strategy::sorted);
}

TEST_CASE("tables that are out of order, or pick dense, are refused") {
  CHECK(refusal({{0, 1, strategy::sorted, strategy::sorted}}) ==
        "hmoe: a tuned table has 0 tokens in line 0, which do not ascend from 1");
  CHECK(refusal({{4, 1, strategy::sorted, strategy::sorted}, {3, 1, strategy::sorted, strategy::sorted}}) ==
        "hmoe: a tuned table has 3 tokens in line 1, which do not ascend from 1");
  CHECK(refusal({{4, 1, strategy::sorted, strategy::sorted}, {4, 1, strategy::sorted, strategy::sorted}}) ==
        "hmoe: a tuned table has 1 effective experts in line 1, which do not ascend from above 0");
  CHECK(refusal({{4, 1, strategy::dense, strategy::sorted}}) ==
        "hmoe: a tuned table picks dense for 4 tokens: automatic cannot take it");
}
