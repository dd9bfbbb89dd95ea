// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd/cpu_maker.hpp>

#include <doctest/doctest.h>

#include <fstream>
#include <iterator>
#include <string>

TEST_CASE("an Intel CPU is one that the system names so") {
  std::ifstream file("/proc/cpuinfo");
  const std::string cpus{std::istreambuf_iterator<char>(file), {}};
#if defined(__x86_64__)
  const bool expected = cpus.find("GenuineIntel") != std::string::npos;
#else
  const bool expected = false;
#endif
  if (!cpus.empty())
    CHECK(hmoe::backends::simd_detail::on_intel() == expected);
}
