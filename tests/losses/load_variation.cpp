// SPDX-License-Identifier: MIT
#include <hmoe/losses/load_variation.hpp>

#include "losses/routing_batch.hpp"

#include <doctest/doctest.h>

#include <utility>
#include <vector>

using hmoe::index_t;
namespace detail = hmoe::losses::detail;

namespace {
/// (expert, the expert whose logit it had to beat) of token 0.
std::vector<std::pair<index_t, index_t>> thresholds(const std::vector<double>& logits, const std::vector<int>& chosen) {
  support::routing_batch batch(1, logits.size());
  batch.set([&](std::size_t, std::size_t e) { return logits[e]; },
            [&](std::size_t, std::size_t e) { return chosen[e] != 0; });
  const hmoe::routed_batch<double> routed{batch.trace, batch.assigned, batch.widths};
  std::vector<std::pair<index_t, index_t>> result;
  detail::for_each_threshold(routed, 0, [&](index_t e, index_t threshold) { result.emplace_back(e, threshold); });
  return result;
}
} // namespace

TEST_CASE("the logit to beat: the best that was not selected, or the worst that was") {
  using pairs = std::vector<std::pair<index_t, index_t>>;
  CHECK(thresholds({1, 4, 2, 3}, {0, 1, 0, 1}) == pairs{{0, 3}, {1, 2}, {2, 3}, {3, 2}});
  CHECK(thresholds({2, 1, 1, 2}, {1, 0, 0, 1}) == pairs{{0, 1}, {1, 0}, {2, 0}, {3, 1}}); // ties to the lower id
  CHECK(thresholds({1, 2}, {1, 1}).empty());
  CHECK(thresholds({1, 2}, {0, 0}).empty());
}

TEST_CASE("a gradient by the deviation is handed on at constant logits") {
  support::routing_batch batch(1, 2);
  batch.set([](std::size_t, std::size_t e) { return e == 0 ? 1.0 : 0.0; },
            [](std::size_t, std::size_t e) { return e == 0; });
  hmoe::routed_batch<double> routed{batch.trace, batch.assigned, batch.widths};
  double sigma = 0.7, received = 0;
  const auto value = [&] {
    return detail::load_variation(
        routed, 1, [&](std::size_t, std::size_t) { return std::pair{sigma, 0.1}; },
        [&](std::size_t, std::size_t, double by_sigma) { received += by_sigma; });
  };
  value();
  const double once = received;
  CHECK(once == doctest::Approx(support::central_difference(sigma, value)).epsilon(1e-7));
}
