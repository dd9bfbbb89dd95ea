// SPDX-License-Identifier: MIT
#include "analysis.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

namespace language_model {
namespace {

using counts = std::vector<std::uint64_t>;

TEST_CASE("correlation") {
  const std::vector<float> a{1, 2, 3, 4};
  CHECK(correlation(a, std::vector<float>{2, 4, 6, 8}) == doctest::Approx(1.0));
  CHECK(correlation(a, std::vector<float>{4, 3, 2, 1}) == doctest::Approx(-1.0));
  CHECK(correlation(a, std::vector<float>{1, 0, 0, 1}) == doctest::Approx(0.0));
  CHECK(correlation(a, std::vector<float>{5, 5, 5, 5}) == 0.0);
}

token_record example_record() {
  token_record r(1, 2, 3);
  r.tokens = {0, 1, 2, 0};
  r.losses = {1.0F, 3.0F, 2.0F, 0.5F};
  r.widths = {{10.0F, 30.0F, 20.0F, 10.0F}};
  r.counts[0](0, 0) = 2;
  r.counts[0](0, 2) = 1;
  r.counts[0](1, 1) = 1;
  return r;
}

TEST_CASE("difficulty bins sort by loss and average the widths") {
  const auto bins = difficulty_bins(example_record(), 2);
  REQUIRE(bins.size() == 2);
  CHECK(bins[0].from == 0.5);
  CHECK(bins[0].to == 1.0);
  CHECK(bins[0].tokens == 2);
  CHECK(bins[0].mean_width_per_layer == std::vector<double>{10.0});
  CHECK(bins[1].mean_width_per_layer == std::vector<double>{25.0});
}

TEST_CASE("top tokens are those an expert sees more often than the text has them") {
  const auto top = top_tokens(counts{30, 10, 1}, counts{100, 300, 1}, 2, 5);
  REQUIRE(top.size() == 2);
  CHECK(top[0].token == 0);
  CHECK(top[0].count == 30);
  CHECK(top[0].lift == doctest::Approx((30.0 / 41.0) / (100.0 / 401.0)));
  CHECK(top[1].token == 1); // token 2 has a higher lift, but too few activations to mean it
  CHECK(top_tokens(counts{0, 0}, counts{5, 5}, 2, 1).empty());
}

TEST_CASE("positions: frequency-weighted ranks by mean loss") {
  // mean losses: token 0 .75 (half of the text), token 2 2.0, token 1 3.0
  CHECK(difficulty_positions(example_record(), 3) == std::vector<double>{0.25, 0.875, 0.625});
}

TEST_CASE("the analysis of a run has an entry for each layer and expert") {
  const auto json = analyse(example_record(), std::vector<std::string>{"a", "\xC3", "c"}, 2);
  CHECK(json.at("difficulty").at("correlation_per_layer").size() == 1);
  CHECK(json.at("top_tokens").at(0).size() == 2);
  // At .25, .875 and .625: two thirds of expert 0 are .625 from expert 1's token, one third .25.
  CHECK(json.at("distance").at(0).at(0).at(1).get<double>() == doctest::Approx(0.5));
  CHECK(json.at("distance").at(0).at(1).at(0) == json.at("distance").at(0).at(0).at(1));
  // Smoothed by half a count each: (2.5, .5, 1.5) / 4.5 and (.5, 1.5, .5) / 2.5.
  const double p[] = {2.5 / 4.5, 0.5 / 4.5, 1.5 / 4.5}, q[] = {0.2, 0.6, 0.2};
  double divergence = 0;
  for (int i = 0; i < 3; ++i)
    divergence += (p[i] - q[i]) * std::log(p[i] / q[i]) / 2;
  CHECK(json.at("synergy").at(0).at(0).at(1).get<double>() == doctest::Approx(divergence));
  CHECK(json.at("synergy").at(0).at(0).at(0) == 0.0);
  CHECK(analyse(example_record(), std::vector<std::string>{"a", "b", "c"}, 1).at("distance").at(0).size() == 1);
  CHECK_NOTHROW(json.dump());
}

} // namespace
} // namespace language_model
