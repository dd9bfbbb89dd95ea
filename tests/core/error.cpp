// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>

#include <doctest/doctest.h>

#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace {

struct expensive {
  int* printed;
  friend std::ostream& operator<<(std::ostream& out, const expensive& e) {
    ++*e.printed;
    return out << "never";
  }
};

constexpr unsigned line_of_check = __LINE__ + 1;
void check_rows(std::size_t rows) { hmoe::require(rows == 3, "x has ", rows, " rows, expected ", 3U); }

} // namespace

TEST_CASE("a failed requirement carries its numbers and its place") {
  try {
    check_rows(7);
    FAIL("the requirement did not hold");
  } catch (const hmoe::error& failure) {
    CHECK(std::string(failure.what()) == "hmoe: x has 7 rows, expected 3");
    CHECK(std::string_view(failure.where().file_name()).ends_with("error.cpp"));
    CHECK(failure.where().line() == line_of_check);
    CHECK(std::string_view(failure.where().function_name()).find("check_rows") != std::string_view::npos);
  }
}

TEST_CASE("a requirement that holds builds no text") {
  int printed = 0;
  hmoe::require(true, expensive{&printed});
  CHECK(printed == 0);
  CHECK_THROWS_AS(hmoe::require(false, expensive{&printed}), hmoe::error);
  CHECK(printed == 1);
}

TEST_CASE("an error is a runtime_error that says where it was made") {
  static_assert(std::is_base_of_v<std::runtime_error, hmoe::error>);
  const hmoe::error made("bad");
  const auto here = std::source_location::current();
  CHECK(std::string(made.what()) == "hmoe: bad");
  CHECK(made.where().line() == here.line() - 1);
}
