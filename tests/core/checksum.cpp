// SPDX-License-Identifier: MIT
#include <hmoe/core/checksum.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace {
std::uint64_t fnv_of(std::string_view first, std::string_view second = "") {
  hmoe::checksum sum;
  sum.add(std::as_bytes(std::span(first)));
  sum.add(std::as_bytes(std::span(second)));
  return sum.value();
}
} // namespace

TEST_CASE("FNV-1a of the test vectors that its authors publish") {
  CHECK(fnv_of("") == 0xcbf29ce484222325U);
  CHECK(fnv_of("a") == 0xaf63dc4c8601ec8cU);
  CHECK(fnv_of("foobar") == 0x85944171f73967e8U);
  CHECK(fnv_of("foo", "bar") == fnv_of("foobar"));
}
