// SPDX-License-Identifier: MIT
#include <hmoe/io/in_quotes.hpp>

#include <doctest/doctest.h>

#include <string>

TEST_CASE("a text of a file is safe to print") {
  CHECK(hmoe::io::in_quotes("layers.0.gate") == "\"layers.0.gate\"");
  CHECK(hmoe::io::in_quotes("") == "\"\"");
  CHECK(hmoe::io::in_quotes(std::string("a\x1b[31m\n\0\xff", 9)) == "\"a?[31m???\"");
  CHECK(hmoe::io::in_quotes(std::string(100, 'x')) == '"' + std::string(100, 'x') + '"');
  CHECK(hmoe::io::in_quotes(std::string(101, 'x')) == '"' + std::string(100, 'x') + "…\"");
}
