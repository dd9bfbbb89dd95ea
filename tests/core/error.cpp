// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace {

struct expensive {
  int* printed;
  operator std::string_view() const {
    ++*printed;
    return "never";
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

TEST_CASE("numbers and texts of a message") {
  const auto text = [](const auto&... parts) { return support::error_of([&] { hmoe::require(false, parts...); }); };
  CHECK(text(std::uint8_t{200}, ' ', std::int8_t{-3}, ' ', std::size_t{1} << 63U, ' ',
             std::numeric_limits<long long>::min(), ' ',
             true) == "hmoe: 200 -3 9223372036854775808 -9223372036854775808 1");
  CHECK(text(std::string("a"), std::string_view("b"), "c", 'd') == "hmoe: abcd");
  // What a reader has typed comes back, and a number beside a limit differs from it.
  CHECK(text(0.1, ' ', 0.1F, ' ', 1.25e-7, ' ', -3.0, ' ', 100000.0, ' ', 12288.0F) ==
        "hmoe: 0.1 0.1 1.25e-07 -3 100000 12288");
  CHECK(text(1.0000001F, ' ', 1.0000001) == "hmoe: 1.0000001 1.0000001");
  CHECK(text(1.0 / 3, ' ', static_cast<double>(0.1F), ' ', 1e300 / 3) == "hmoe: 0.333333 0.1 3.33333e+299");
  CHECK(text(std::numeric_limits<double>::quiet_NaN(), ' ', -std::numeric_limits<float>::infinity()) ==
        "hmoe: nan -inf");
}

TEST_CASE("exception_of returns what was thrown") {
  CHECK(hmoe::exception_of([] {}) == nullptr);
  const std::exception_ptr thrown = hmoe::exception_of([] { throw 5; });
  REQUIRE(thrown != nullptr);
  CHECK_THROWS_AS(std::rethrow_exception(thrown), int);
}

TEST_CASE("an error is a runtime_error that says where it was made") {
  static_assert(std::is_base_of_v<std::runtime_error, hmoe::error>);
  const hmoe::error made("bad");
  const auto here = std::source_location::current();
  CHECK(std::string(made.what()) == "hmoe: bad");
  CHECK(made.where().line() == here.line() - 1);
}
