// SPDX-License-Identifier: MIT
#include <hmoe/io/format_list.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <string>
#include <string_view>

namespace {
struct first_format {
  static constexpr std::string_view name = "q8";
};
struct second_format {
  static constexpr std::string_view name = "q4";
};
using two_formats = hmoe::io::format_list<first_format, second_format>;
std::string chosen_format(std::string_view name) {
  return two_formats::visit(name, []<class Format>() { return "chosen: " + std::string(Format::name); });
}
} // namespace

TEST_CASE("a format is found by its whole name, else those that there are get listed") {
  CHECK(chosen_format("q8") == "chosen: q8");
  CHECK(chosen_format("q4") == "chosen: q4");
  CHECK(support::error_of([] { chosen_format("q"); }) ==
        "hmoe: the format of packed weights is \"q\": possible are q8, q4");
}
