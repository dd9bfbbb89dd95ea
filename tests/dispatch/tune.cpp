// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/tune.hpp>

#include "dispatch/strategies.hpp"
#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <vector>

using namespace hmoe::dispatch;

TEST_CASE("a tuned table is one that automatic runs by, and tuning changes nothing in the layer") {
  const hmoe::routing::top_k_router<float> router(10, 6, 2);
  const auto layer = support::make_layer<float>(sorted{}, router);
  const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::openmp{2}};
  const auto before = support::run_passes(layer, ctx, 5);
  const tuned_table table = tune(layer, ctx, {.tokens = {1, 5, 70}, .seconds = 0.001, .cpu = "some"});
  CHECK(table.cpu == "some");
  CHECK(table.shape == shape_of(ctx, layer.experts()));
  REQUIRE(table.choices.size() >= 4); // 70 tokens with an even load and a skewed one at least
  CHECK(table.choices[0].tokens == 1);
  CHECK(table.choices[0].effective_experts == 2);
  const tuned_table::choice &skewed = *(table.choices.end() - 2), &even = table.choices.back();
  CHECK(skewed.tokens == 70);
  CHECK(even.tokens == 70);
  CHECK(skewed.effective_experts < 0.8 * even.effective_experts);
  CHECK(even.effective_experts > 4.5);
  const auto by_table = support::make_layer<float>(automatic{table}, router);
  const auto after = support::run_passes(layer, ctx, 5), tuned = support::run_passes(by_table, ctx, 5);
  CHECK(support::same_bits(after.y, before.y));
  CHECK(support::same_bits(after.gradients, before.gradients));
  CHECK(support::same_bits(tuned.inferred, before.y));
  CHECK(support::same_bits(tuned.gradients, before.gradients));
}

TEST_CASE("numbers of tokens that do not ascend are refused") {
  const auto layer = support::make_layer<float>(sorted{}, hmoe::routing::top_k_router<float>(10, 6, 2));
  CHECK(support::error_of([&] {
          static_cast<void>(tune(layer, hmoe::context{hmoe::backends::reference{}}, {.tokens = {4, 2}}));
        }) == "hmoe: a tuned table has 2 tokens in line 1, which do not ascend from 1");
}

TEST_CASE(
    "a skewed load: as many experts for a token as before, each once, popular ones more often; shared ones stay") {
  hmoe::assignment<float> batch;
  batch.resize_tokens(3000);
  for (std::size_t t = 0; t < 3000; ++t)
    batch.offsets()[t + 1] = static_cast<hmoe::index_t>(3 * (t + 1));
  batch.resize_entries();
  for (std::size_t a = 0; a < batch.size(); ++a)
    batch.experts()[a] = static_cast<hmoe::index_t>(a % 3 == 2 ? 5 : a % 3); // 5 is shared
  detail::spread_by_zipf(batch, 5, 2.0);
  batch.validate(6);
  std::vector<double> counts(5);
  for (std::size_t t = 0; t < 3000; ++t) {
    REQUIRE(batch.experts_of(t)[2] == 5);
    for (std::size_t i = 0; i < 2; ++i)
      ++counts.at(batch.experts_of(t)[i]);
  }
  std::sort(counts.begin(), counts.end(), std::greater<>{});
  // Two draws without return of shares p = 1, 1/4, 1/9, …: an expert comes with p_i + Σ_j p_j p_i / (1 - p_j).
  double sum = 0;
  for (int i = 1; i <= 5; ++i)
    sum += 1.0 / (i * i);
  for (int i = 1; i <= 5; ++i) {
    const double own = 1.0 / (i * i) / sum;
    double expected = own;
    for (int j = 1; j <= 5; ++j)
      if (const double other = 1.0 / (j * j) / sum; j != i)
        expected += other * own / (1 - other);
    CHECK(counts[static_cast<std::size_t>(i - 1)] / 3000 == doctest::Approx(expected).epsilon(0.08));
  }
}

TEST_CASE("the quickest by measured times: sorted where no other is 1 % quicker, and a slow one runs once") {
  const auto quickest = [](const std::vector<double>& seconds, std::vector<int>& runs) {
    return quickest_measured({}, 0.1, [&](const automatic& by) {
      const auto which = static_cast<std::size_t>(by.table().choices[0].inference);
      return seconds.at(which) * (1 + 0.5 * (runs.at(which)++ % 2)); // the shortest counts
    });
  };
  std::vector<int> runs(strategy_count);
  //                per_token, scattered, sorted, blocked, looped
  CHECK(quickest({0.01, 0.002, 0.003, 0.003, 0.003}, runs) == strategy::scattered);
  CHECK(runs[static_cast<std::size_t>(strategy::per_token)] == 1);
  CHECK(runs[static_cast<std::size_t>(strategy::sorted)] > 3);
  CHECK(runs[static_cast<std::size_t>(strategy::dense)] == 0);
  CHECK(quickest({0.01, 0.00298, 0.003, 0.003, 0.003}, runs) == strategy::sorted);
  CHECK(quickest({0.003, 0.003, 0.003, 0.001, 0.003}, runs) == strategy::blocked);
}
