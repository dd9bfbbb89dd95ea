// SPDX-License-Identifier: MIT
// The laws on every size strategy.
#include <hmoe/experts/widths.hpp>
#include <hmoe/testing/widths_laws.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace widths = hmoe::widths;
using hmoe::testing::check_widths;

TEST_CASE("size strategies") {
  CHECK(check_widths(widths::uniform{.count = 4, .total = 4000}, {.relative = {1, 1, 1, 1}}).text() == "");
  CHECK(check_widths(widths::uniform{.count = 1, .total = 1}).text() == "");
  const std::vector<double> steps{9, 11, 13, 15, 17, 19, 21, 23};
  CHECK(check_widths(widths::arithmetic{.count = 8, .total = 12288}, {.relative = steps}).text() == "");
  CHECK(check_widths(widths::arithmetic{.count = 8, .total = 12288, .multiple = 32}, {.relative = steps}).text() == "");
  CHECK(check_widths(widths::arithmetic{.count = 1, .total = 7}).text() == "");
  CHECK(
      check_widths(widths::geometric{.count = 8, .total = 12288}, {.relative = {1, 2, 4, 8, 16, 32, 64, 128}}).text() ==
      "");
  CHECK(check_widths(widths::geometric{.count = 5, .total = 640, .ratio = 0.5, .multiple = 8},
                     {.relative = {16, 8, 4, 2, 1}})
            .text() == "");
  CHECK(check_widths(widths::geometric{.count = 8, .total = 20}).text() == ""); // many at the smallest width
  CHECK(check_widths(widths::hybrid{.count = 8, .total = 999}, {.relative = {1, 1, 1, 1, 2, 2, 4, 4}}).text() == "");
  CHECK(check_widths(widths::hybrid{.count = 4, .total = 128, .multiple = 4}, {.relative = {1, 1, 2, 4}}).text() == "");
  CHECK(check_widths(widths::list{{1, 1, 2, 4}, 1000}).text() == "");
  CHECK(check_widths(widths::list{{0.3, 7, 2.5}, 96, 16}).text() == "");
  CHECK(check_widths(widths::fixed<864, 1056, 2>{}).text() == "");
}
