// SPDX-License-Identifier: MIT
#include <hmoe/execution/openmp.hpp>

#include <doctest/doctest.h>

#include <cstddef>

using hmoe::executors::openmp;

TEST_CASE("by default it has as many threads as OpenMP") {
  CHECK(openmp().concurrency() == static_cast<std::size_t>(omp_get_max_threads()));
}
