// SPDX-License-Identifier: MIT
// The laws on every optimiser.
#include <hmoe/testing/optimizer_laws.hpp>
#include <hmoe/training/adamw.hpp>
#include <hmoe/training/sgd.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace training = hmoe::training;

namespace {
/// With float and double parameters.
template <template <class> class Optimizer> void check(const auto& options) {
  const auto make = [&]<class T>(const std::vector<hmoe::parameter<T>>& list) { return Optimizer<T>(options, list); };
  CHECK(hmoe::testing::check_optimizer<float>(make).text() == "");
  CHECK(hmoe::testing::check_optimizer<double>(make).text() == "");
}
} // namespace

TEST_CASE("optimisers") {
  check<training::adamw>(training::adamw_options{});
  check<training::adamw>(training::adamw_options{.beta1 = 0, .beta2 = 0.9, .epsilon = 1e-3, .weight_decay = 0.5});
  check<training::sgd>(training::sgd_options{});
  check<training::sgd>(training::sgd_options{.momentum = 0.9, .weight_decay = 0.1});
}
