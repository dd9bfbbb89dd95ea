// SPDX-License-Identifier: MIT
// The kernels of all levels that this CPU has, in one process.
#include <hmoe/backends/reference.hpp>
#include <hmoe/core/matrix.hpp>

#include "kernel.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

namespace isa = hmoe::isa;

TEST_CASE("each level computes the same with its own instructions") {
  support::random_source random(3);
  const auto x = support::random_matrix<float>(random, 29, 70), w = support::random_matrix<float>(random, 45, 70);
  hmoe::matrix<float> expected(29, 45);
  hmoe::backends::reference::multiply_transposed(x.view(), w.view(), expected.view());
  const auto levels = multiply.levels();
  CHECK(levels.size() == 4);
  for (const isa::level each : levels) {
    if (each > isa::cpu_level())
      continue;
    CAPTURE(isa::name(each));
    hmoe::matrix<float> y(29, 45);
    multiply.form(each)(x, w, y);
    CHECK(compiled_and_calls.form(each)() == std::string(isa::name(each)) + " 1");
    CHECK(support::largest_difference(y.view(), expected.view()) <= 1e-5);
  }
  CHECK((multiply.form(isa::level::base) == nullptr));
}

TEST_CASE("an error thrown by a kernel is caught by the program") {
  const hmoe::matrix<float> x(1, 2), w(1, 3);
  hmoe::matrix<float> y(1, 1);
  CHECK_THROWS_WITH_AS(isa::select(multiply)(x, w, y), "hmoe: x has 2 columns, w has 3", hmoe::error);
}

TEST_CASE("HMOE_ISA chooses the level") {
  const char* before = std::getenv("HMOE_ISA");
  const std::string saved = before == nullptr ? "" : before;
  setenv("HMOE_ISA", "v2", 1);
  CHECK((isa::select(multiply) == multiply.form(isa::level::v2)));
  setenv("HMOE_ISA", "v1", 1);
  CHECK_THROWS_AS(static_cast<void>(isa::select(multiply)), hmoe::error);
  setenv("HMOE_ISA", saved.c_str(), 1);
}
