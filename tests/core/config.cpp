// SPDX-License-Identifier: MIT
#include <hmoe/core/config.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <type_traits>

namespace {
struct pair {
  int first, second;
};
HMOE_CALLS_ARGUMENT template <class T> HMOE_HOST_DEVICE constexpr auto& second_of(T& pair HMOE_LIFETIMEBOUND) {
  return pair.second;
}
} // namespace

TEST_CASE("ids are 32 bits wide, and the largest one names nothing") {
  static_assert(std::is_same_v<hmoe::index_t, std::uint32_t>); // what files and devices hold
  static_assert(hmoe::no_index == std::numeric_limits<hmoe::index_t>::max());
}

TEST_CASE("the marks of functions do not change what a host compiler makes of them") {
  pair both{3, 4};
  second_of(both) = 5;
  CHECK(both.second == 5);
  static_assert(std::is_same_v<decltype(second_of(both)), int&>);
}
