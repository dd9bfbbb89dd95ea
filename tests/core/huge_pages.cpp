// SPDX-License-Identifier: MIT
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/huge_pages.hpp>

#include "support/counting_resource.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <string>

namespace {

constexpr std::size_t megabyte = std::size_t{1} << 20;

/// What Linux tells of the mapping in which an address lies, in two letters each, such as "rd wr hg"; empty where it
/// tells nothing.
std::string flags_of_mapping(const void* memory) {
  std::ifstream maps("/proc/self/smaps");
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    unsigned long long begin = 0, end = 0;
    if (std::sscanf(line.c_str(), "%llx-%llx ", &begin, &end) == 2)
      inside = begin <= address && address < end;
    else if (inside && line.starts_with("VmFlags:"))
      return line.substr(8);
  }
  return {};
}

bool asked_for_huge_pages(const void* memory) { return flags_of_mapping(memory).find(" hg") != std::string::npos; }

/// Whether this system has huge pages and tells about them.
bool system_has_huge_pages() {
  return std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled").good() && !flags_of_mapping(stdin).empty();
}

} // namespace

TEST_CASE("what a block holds stays, whatever its size and place") {
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{100}, 2 * megabyte, 5 * megabyte + 3}) {
    hmoe::buffer<unsigned char> block(bytes + 64);
    std::iota(block.begin(), block.end(), static_cast<unsigned char>(7));
    for (const std::size_t offset : {0U, 1U, 64U})
      hmoe::prefer_huge_pages(block.data() + offset, bytes);
    bool same = true;
    for (std::size_t i = 0; i < block.size(); ++i)
      same = same && block[i] == static_cast<unsigned char>(i + 7);
    CHECK(same);
  }
  hmoe::prefer_huge_pages(nullptr, 0);
}

// Blocks of 64 MB, which the heap never takes from memory that was in use before.
TEST_CASE("large blocks from the heap are asked for in huge pages" * doctest::skip(!system_has_huge_pages())) {
  const hmoe::buffer<std::byte> weights(64 * megabyte);
  CHECK(asked_for_huge_pages(weights.data() + 32 * megabyte));
  support::counting_resource elsewhere; // its owner decides
  const hmoe::buffer<std::byte> lent(64 * megabyte, &elsewhere);
  CHECK_FALSE(asked_for_huge_pages(lent.data() + 32 * megabyte));
}
