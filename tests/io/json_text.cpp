// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/io/json_text.hpp>

#include <doctest/doctest.h>

#include <string>

TEST_CASE("a text becomes a JSON string") {
  std::string json = "x";
  hmoe::io::append_json_string(json, std::string("a\"b\\c\n\r\x1f\0é€😀", 18));
  CHECK(json == "x\"a\\\"b\\\\c\\n\\r\\u001f\\u0000é€😀\"");
  CHECK_THROWS_WITH_AS(hmoe::io::append_json_string(json, "a\xff"),
                       "hmoe: the text \"a?\" is not UTF-8, which JSON needs", hmoe::error);
}

TEST_CASE("UTF-8 and what is not") {
  for (const char* good : {"", "abc", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
                           "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"})
    CHECK(hmoe::io::is_utf8(good));
  for (const char* bad : {"\x80", "\xc1\xbf", "\xc2", "\xc2\x41", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xe2\x82",
                          "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xf0\x9f\x98", "a\xff"})
    CHECK_FALSE(hmoe::io::is_utf8(bad));
}
