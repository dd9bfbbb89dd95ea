// SPDX-License-Identifier: MIT
// Every shipped backend of the host obeys the laws, and has the operations that its page says.
#include <hmoe/backends/eigen.hpp>
#include <hmoe/backends/reference.hpp>
#include <hmoe/testing/backend_laws.hpp>

#ifdef HMOE_WITH_SIMD
#include <hmoe/backends/simd.hpp>
#endif

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace hmoe;

TEST_CASE("backends::eigen obeys the laws; the order of its sums is Eigen's") {
  const auto found = testing::check_backend(backends::eigen{}, {.same_bits_in_any_batch = false});
  CHECK(found.text() == "");
  CHECK(found.has() == std::vector<std::string>{"activate", "activate_backward", "gate", "gate_backward"});
}

#ifdef HMOE_WITH_SIMD
TEST_CASE("backends::simd obeys the laws and has every operation") {
  const auto found = testing::check_backend(backends::simd<>{});
  CHECK(found.text() == "");
  CHECK(found.lacks().empty());
}
#endif
