// SPDX-License-Identifier: MIT
#include <hmoe/hmoe.hpp>

#include <doctest/doctest.h>

TEST_CASE("the umbrella brings the components that are linked") {
  static_assert(hmoe::backend<hmoe::backends::reference>);
  static_assert(hmoe::backend<hmoe::backends::eigen>);
  static_assert(hmoe::executor<hmoe::executors::serial>);
  static_assert(hmoe::executor<hmoe::executors::openmp>);
}
