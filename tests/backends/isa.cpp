// SPDX-License-Identifier: MIT
#include <hmoe/backends/isa.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

using namespace hmoe::isa;
using enum level;

namespace {

level choose(const std::vector<level>& built, level cpu, std::string_view wanted = "") {
  return detail::choose(built, cpu, wanted);
}
std::string refusal(const std::vector<level>& built, level cpu, std::string_view wanted = "") {
  try {
    return "chose " + std::string(name(choose(built, cpu, wanted)));
  } catch (const hmoe::error& problem) {
    return problem.what();
  }
}

} // namespace

TEST_CASE("the best level that the CPU has is chosen, or the one that is asked for") {
  const std::vector<level> all{v2, v3, v4, v4_bf16};
  CHECK(choose(all, v2) == v2);
  CHECK(choose(all, v3) == v3);
  CHECK(choose(all, v4_bf16) == v4_bf16);
  CHECK(choose({v4, v2}, v3) == v2);
  CHECK(choose({base, v4}, v3) == base);
  CHECK(choose(all, v4, "v3") == v3);
  CHECK(choose({base, v2}, v4, "base") == base);
}

TEST_CASE("a level that the CPU lacks, or that was not built, is refused by name") {
  CHECK(refusal({v3, v4}, v2) ==
        "hmoe: this CPU supports up to x86-64-v2, the program was built for x86-64-v3, x86-64-v4");
  CHECK(refusal({v2}, base) == "hmoe: this CPU supports up to the baseline, the program was built for x86-64-v2");
  CHECK(refusal({v2, v3, v4}, v3, "v4") == "hmoe: HMOE_ISA=v4 asks for x86-64-v4, but this CPU supports up to "
                                           "x86-64-v3");
  CHECK(refusal({v2, v3}, v3, "avx2") ==
        "hmoe: HMOE_ISA=avx2 is none of the instruction-set levels that this program was built for: v2, v3");
}

TEST_CASE("this CPU has at least the level that these tests are compiled for") {
#if defined(__AVX512VL__) && defined(__AVX512DQ__)
  CHECK(cpu_level() >= v4);
#elif defined(__AVX2__)
  CHECK(cpu_level() >= v3);
#elif defined(__SSE4_2__)
  CHECK(cpu_level() >= v2);
#endif
  for (const level each : all_levels)
    CHECK(detail::cpu_has(each) == (each <= cpu_level()));
}
