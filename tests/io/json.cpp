// SPDX-License-Identifier: MIT
#include <hmoe/io/json.hpp>

#include <doctest/doctest.h>

#include <string>

using hmoe::io::json_value;
using hmoe::io::parse_json;

namespace {
std::string repeated(std::string_view text, std::size_t times) {
  std::string result;
  for (std::size_t i = 0; i < times; ++i)
    result += text;
  return result;
}
} // namespace

TEST_CASE("a JSON text becomes its values") {
  const json_value value =
      parse_json(R"({"b": [1, -2, 2.5, true, null, "\u00e9\n"], "a": {}, "big": 18446744073709551615})", "the text");
  CHECK(value.members("it").size() == 3);
  CHECK(value.members("it")[0].first == "a"); // ascending
  const auto& list = value.at("b", "it").elements("b");
  REQUIRE(list.size() == 6);
  CHECK(list[0].natural("it") == 1);
  CHECK(list[1].number("it") == -2);
  CHECK(list[2].number("it") == 2.5);
  CHECK(list[3].boolean("it"));
  CHECK(list[4].is_null());
  CHECK(list[5].text("it") == "é\n");
  CHECK(value.at("big", "it").natural("it") == 18446744073709551615U);
  CHECK(value.find("c") == nullptr);
  CHECK(list[0].find("c") == nullptr);
  CHECK(parse_json(" 7 ", "the text").natural("it") == 7);
}

TEST_CASE("what is of another kind is refused with both kinds") {
  const json_value value = parse_json(R"({"n": -1, "x": 1.5, "t": "3"})", "the text");
  CHECK_THROWS_WITH(static_cast<void>(value.at("n", "it").natural("n")),
                    "hmoe: n is a negative whole number, needed is a whole number from 0 to 2^64 - 1");
  CHECK_THROWS_WITH(static_cast<void>(value.at("x", "it").natural("x")),
                    "hmoe: x is a real number, needed is a whole number from 0 to 2^64 - 1");
  CHECK_THROWS_WITH(static_cast<void>(value.at("t", "it").number("t")), "hmoe: t is a text, needed is a number");
  CHECK_THROWS_WITH(static_cast<void>(value.text("all")), "hmoe: all is an object, needed is a text");
  CHECK_THROWS_WITH(static_cast<void>(value.at("y", "all")), "hmoe: all has no member \"y\"");
  CHECK_THROWS_WITH(static_cast<void>(parse_json("18446744073709551616", "s").natural("s")),
                    "hmoe: s is a real number, needed is a whole number from 0 to 2^64 - 1");
}

TEST_CASE("a text that is no JSON is refused with the place") {
  CHECK_THROWS_WITH(static_cast<void>(parse_json("", "f")), "hmoe: f is no JSON in UTF-8: byte 1 does not fit");
  CHECK_THROWS_WITH(static_cast<void>(parse_json("{\"a\": 1", "f")),
                    "hmoe: f is no JSON in UTF-8: byte 8 does not fit");
  CHECK_THROWS_WITH(static_cast<void>(parse_json("[1] 2", "f")), "hmoe: f is no JSON in UTF-8: byte 5 does not fit");
  CHECK_THROWS_AS(static_cast<void>(parse_json("{\"a\xff\": 1}", "f")), hmoe::error);
  CHECK_THROWS_AS(static_cast<void>(parse_json("[1e999]", "f")), hmoe::error);
  CHECK_THROWS_AS(static_cast<void>(parse_json("[NaN]", "f")), hmoe::error);
  CHECK_THROWS_WITH(static_cast<void>(parse_json(R"({"x": {"a": 1, "b": 2, "a": 3}})", "f")),
                    "hmoe: f has the key \"a\" twice in one object");
  CHECK(parse_json(R"([{"a": 1}, {"a": 2}])", "f").elements("it").size() == 2);
}

TEST_CASE("depth and number of values are bounded") {
  CHECK(parse_json(repeated("[", 16) + repeated("]", 16), "f").is_array());
  CHECK_THROWS_WITH(static_cast<void>(parse_json(repeated("[", 17) + repeated("]", 17), "f")),
                    "hmoe: f is nested deeper than 16 levels");
  CHECK_THROWS_AS(static_cast<void>(parse_json(repeated("[", 10'000'000), "f")), hmoe::error);
  CHECK_THROWS_AS(static_cast<void>(parse_json(repeated("{\"a\":", 10'000'000), "f")), hmoe::error);
  CHECK(parse_json("[1,2,3]", "f", {.values = 4}).elements("it").size() == 3);
  CHECK_THROWS_WITH(static_cast<void>(parse_json("[1,2,3]", "f", {.values = 3})), "hmoe: f has more than 3 values");
}
