// SPDX-License-Identifier: MIT
// Every strategy on the eigen backend, which orders sums its own way.
#include <hmoe/backends/eigen.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/sorted.hpp>

#include "dispatch/strategies.hpp"

#include <doctest/doctest.h>

namespace {
template <class T> double difference(const std::vector<T>& a, const std::vector<T>& b) {
  return support::largest_difference(hmoe::matrix_view<const T>(a.data(), 1, a.size()),
                                     hmoe::matrix_view<const T>(b.data(), 1, b.size()));
}
} // namespace

TEST_CASE_TEMPLATE("the eigen backend agrees with the reference to rounding", T, float, double) {
  Eigen::setNbThreads(1);
  const auto check = [](auto dispatch) {
    const hmoe::routing::top_k_router<T> router(10, 6, 2);
    const auto oracle = support::make_layer<T>(hmoe::dispatch::dense{}, router);
    const auto layer = support::make_layer<T>(dispatch, router);
    for (const std::size_t tokens : {0U, 1U, 3U, 300U})
      for (const std::size_t threads : {1U, 2U}) {
        const auto expected =
            support::run_passes(oracle, hmoe::context{hmoe::backends::reference{}, hmoe::executors::openmp{1}}, tokens);
        const auto got = support::run_passes(
            layer, hmoe::context{hmoe::backends::eigen{}, hmoe::executors::openmp{threads}}, tokens);
        const double tolerance = std::same_as<T, double> ? 1e-12 : 1e-5;
        CHECK(difference(got.y, expected.y) < tolerance);
        CHECK(difference(got.inferred, expected.y) < tolerance);
        CHECK(difference(got.dx, expected.dx) < tolerance);
        CHECK(difference(got.gradients, expected.gradients) < 30 * tolerance); // sums over all tokens
      }
  };
  check(hmoe::dispatch::looped{});
  check(hmoe::dispatch::sorted{});
}
