// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd/cpu_maker.hpp>

#include <doctest/doctest.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstring>

TEST_CASE("an Intel CPU is one whose cpuid says so") {
  bool expected = false;
#if defined(__x86_64__)
  unsigned highest = 0;
  unsigned maker[3] = {};
  REQUIRE(__get_cpuid(0, &highest, &maker[0], &maker[2], &maker[1]) != 0);
  expected = std::memcmp(maker, "GenuineIntel", sizeof maker) == 0;
#endif
  CHECK(hmoe::backends::simd_detail::on_intel() == expected);
}
