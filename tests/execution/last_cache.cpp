// SPDX-License-Identifier: MIT
#include <hmoe/execution/last_cache.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <fstream>
#include <string>

TEST_CASE("the last cache is the largest one that the system names") {
  std::size_t largest = 0;
  for (const char* index : {"0", "1", "2", "3", "4"}) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::string(index) + "/size");
    std::string text;
    if (file >> text && text.back() == 'K')
      largest = std::max(largest, std::stoul(text) * 1024);
  }
  if (largest > 0)
    CHECK(hmoe::last_cache_bytes() == largest);
  CHECK(hmoe::last_cache_bytes() >= 65536);
}
