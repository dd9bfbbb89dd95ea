// SPDX-License-Identifier: MIT
#include <hmoe/training/gradient_norm.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

using hmoe::parameter;
using hmoe::training::clip_gradient_norm;
using hmoe::training::gradient_norm;

namespace {
template <class T> std::vector<parameter<T>> list_of(std::vector<std::vector<T>>& gradients) {
  std::vector<parameter<T>> list;
  for (auto& gradient : gradients)
    list.push_back({"w", {}, gradient, true});
  return list;
}
} // namespace

TEST_CASE("the norm goes over all tensors") {
  std::vector<std::vector<double>> gradients{{1, -2}, {}, {4}, {-2, 0}}; // 1 + 4 + 16 + 4 = 25
  CHECK(gradient_norm(list_of(gradients)) == 5);
  CHECK(gradient_norm(std::vector<parameter<double>>{}) == 0);
  std::vector<std::vector<float>> long_ones(2); // 1² + … + 100² = 338350, in tensors of 67 and 33
  for (int i = 1; i <= 100; ++i)
    long_ones[i > 67 ? 1 : 0].push_back(static_cast<float>(i));
  CHECK(gradient_norm(list_of(long_ones)) == std::sqrt(338350.0));
  std::vector<std::vector<float>> large{{3e30F, 4e30F}}; // squares do not fit into a float
  CHECK(gradient_norm(list_of(large)) == doctest::Approx(5e30));
}

TEST_CASE("above the limit the gradients are scaled to it, at or below they keep their bits") {
  std::vector<std::vector<double>> gradients{{1, -2}, {4}, {-2}};
  CHECK(clip_gradient_norm(list_of(gradients), 2.5) == 5); // the norm from before
  CHECK(gradients == std::vector<std::vector<double>>{{0.5, -1}, {2}, {-1}});
  CHECK(clip_gradient_norm(list_of(gradients), 2.5) == 2.5);
  CHECK(clip_gradient_norm(list_of(gradients), 2.6) == 2.5);
  CHECK(clip_gradient_norm(list_of(gradients), 1e9) == 2.5);
  CHECK(gradients == std::vector<std::vector<double>>{{0.5, -1}, {2}, {-1}});

  std::vector<std::vector<float>> single{{0.3F, 0.4F}};
  clip_gradient_norm(list_of(single), 0.01);
  CHECK(gradient_norm(list_of(single)) == doctest::Approx(0.01).epsilon(1e-6));
  std::vector<std::vector<float>> zero{{0, 0}};
  CHECK(clip_gradient_norm(list_of(zero), 1.0) == 0);
  CHECK(zero[0][0] == 0);
}

TEST_CASE("a norm that is not finite and a limit that is not positive are errors that change nothing") {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    std::vector<std::vector<double>> gradients{{100.0}, {bad}};
    CHECK_THROWS_AS(clip_gradient_norm(list_of(gradients), 1.0), hmoe::error);
    CHECK(gradients[0][0] == 100);
  }
  std::vector<std::vector<double>> gradients{{100.0}, {std::numeric_limits<double>::infinity()}};
  CHECK_THROWS_WITH_AS(clip_gradient_norm(list_of(gradients), 1.0),
                       "hmoe: the gradient norm is inf: training has diverged", hmoe::error);
  CHECK_THROWS_WITH_AS(clip_gradient_norm(list_of(gradients), 0.0),
                       "hmoe: clip_gradient_norm needs max_norm > 0, given is 0", hmoe::error);
}
