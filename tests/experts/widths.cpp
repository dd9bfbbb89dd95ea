// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/experts/widths.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

namespace widths = hmoe::widths;

namespace {

using sizes = std::vector<std::size_t>;

std::size_t sum(const sizes& list) { return std::accumulate(list.begin(), list.end(), std::size_t{0}); }

// The text of the error that f throws, or "" if it throws none.
template <class F> std::string complaint(F&& f) {
  try {
    f();
  } catch (const hmoe::error& failure) {
    return failure.what();
  }
  return {};
}
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

} // namespace

TEST_CASE("the tables of HMoE (arXiv 2408.10681)") {
  CHECK(sizes(widths::arithmetic{.count = 8, .total = 12288}) ==
        sizes{864, 1056, 1248, 1440, 1632, 1824, 2016, 2208}); // 0.4B
  CHECK(sizes(widths::arithmetic{.count = 8, .total = 32768}) ==
        sizes{2304, 2816, 3328, 3840, 4352, 4864, 5376, 5888}); // 3B
  CHECK(sizes(widths::geometric{.count = 8, .total = 255 * 48}) == sizes{48, 96, 192, 384, 768, 1536, 3072, 6144});
  CHECK(sizes(widths::hybrid{.total = 12288}) == sizes{768, 768, 768, 768, 1536, 1536, 3072, 3072});
  CHECK(sizes(widths::uniform{.count = 8, .total = 12288}) == sizes(8, 1536));
}

TEST_CASE("what does not divide is shared out by the largest remainders, ties to the lower id") {
  // 12288·(1, 2, 4, …, 128)/255 = 48.19 96.38 192.75 385.51 771.01 1542.02 3084.05 6168.09: floors sum to 12286.
  CHECK(sizes(widths::geometric{.count = 8, .total = 12288}) == sizes{48, 96, 193, 386, 771, 1542, 3084, 6168});
  CHECK(sizes(widths::list{{1, 1, 1}, 5}) == sizes{2, 2, 1});
  CHECK(sizes(widths::list{{1, 1, 1}, 4}) == sizes{2, 1, 1});
  CHECK(sizes(widths::list{{3, 1}, 6}) == sizes{5, 1}); // 4.5 and 1.5 tie
  CHECK(sizes(widths::list{{1, 3}, 6}) == sizes{2, 4});
  CHECK(sizes(widths::list{{1, 2}, 96, 32}) == sizes{32, 64});
  CHECK(sizes(widths::list{{1, 2}, 128, 32}) == sizes{32, 96}); // 1.33 and 2.67 units
  CHECK(sizes(widths::list{{5}, 7}) == sizes{7});
}

TEST_CASE("an expert whose share is below one unit gets one, the others divide the rest in proportion") {
  CHECK(sizes(widths::list{{1, 1000}, 10}) == sizes{1, 9});
  CHECK(sizes(widths::list{{1, 1, 1, 1000}, 6}) == sizes{1, 1, 1, 3});
  CHECK(sizes(widths::list{{1000, 1, 1, 1}, 4}) == sizes{1, 1, 1, 1});
  CHECK(sizes(widths::list{{1e-12, 1e12, 1e12}, 9, 3}) == sizes{3, 3, 3});
  CHECK(sizes(widths::geometric{.count = 8, .total = 12}) == sizes{1, 1, 1, 1, 1, 1, 2, 4});
  // Lifting the first to 1 pushes the share of the second, 1.001 of 11, below 1 as well.
  CHECK(sizes(widths::list{{0.05, 10.22, 51, 51}, 11}) == sizes{1, 1, 5, 4});
}

TEST_CASE("large totals stay exact") {
  const std::size_t total = 1'000'000'000'007;
  CHECK(sum(widths::apportion({9, 11, 13, 15, 17, 19, 21, 23}, total)) == total);
  CHECK(sum(widths::apportion({1, 1, 1}, total)) == total);
  CHECK(sum(widths::apportion(std::vector<double>(97, 0.1), total)) == total);
}

TEST_CASE("random requests: exact sums, multiples, at least one unit, proportional and monotone") {
  support::random_source random(51);
  unsigned wrong_sum = 0, no_multiple = 0, empty = 0, not_monotone = 0, far = 0;
  for (int round = 0; round < 4000; ++round) {
    const std::size_t count = random.size(1, 24), multiple = random.size(1, 40);
    const std::size_t units = random.size(count, round % 2 == 0 ? 2 * count : 5000);
    std::vector<double> relative(count);
    const double spread = random.real(0, 8);
    for (double& r : relative) {
      r = std::exp(random.real(-spread, spread));
      if (round % 3 == 0)
        r = std::ceil(r); // many equal sizes
    }
    const sizes result = widths::apportion(relative, units * multiple, multiple);
    REQUIRE(result.size() == count);
    wrong_sum += sum(result) == units * multiple ? 0U : 1U;
    const double whole = std::accumulate(relative.begin(), relative.end(), 0.0);
    const double smallest = *std::ranges::min_element(relative) / whole * static_cast<double>(units);
    for (std::size_t i = 0; i < count; ++i) {
      no_multiple += result[i] % multiple == 0 ? 0U : 1U;
      empty += result[i] >= 1 ? 0U : 1U;
      const double quota = relative[i] / whole * static_cast<double>(units);
      // Where nobody had to be lifted to one unit, everybody is within one unit of the exact share.
      if (smallest >= 1)
        far += std::abs(static_cast<double>(result[i] / multiple) - quota) <= 1 + 1e-9 ? 0U : 1U;
      for (std::size_t j = 0; j < count; ++j)
        not_monotone += relative[i] > relative[j] * (1 + 1e-6) && result[i] < result[j] ? 1U : 0U;
    }
  }
  CHECK(wrong_sum == 0);
  CHECK(no_multiple == 0);
  CHECK(empty == 0);
  CHECK(not_monotone == 0);
  CHECK(far == 0);
}

TEST_CASE("the scale of the relative sizes does not matter") {
  const std::vector<double> relative{9, 11, 13, 15, 17, 19, 21, 23};
  for (const double scale : {1e-200, 0.1, 3.0, 1e200}) {
    auto scaled = relative;
    for (double& r : scaled)
      r *= scale;
    CHECK(widths::apportion(scaled, 12288) == sizes{864, 1056, 1248, 1440, 1632, 1824, 2016, 2208});
    CHECK(widths::apportion(scaled, 256) == widths::apportion(relative, 256));
  }
}

TEST_CASE("arithmetic of one expert, falling sizes, multiples") {
  CHECK(sizes(widths::arithmetic{.count = 1, .total = 77}) == sizes{77});
  CHECK(sizes(widths::arithmetic{.count = 3, .total = 60, .first = 3, .last = 1}) == sizes{30, 20, 10});
  CHECK(sizes(widths::arithmetic{.count = 8, .total = 12288, .multiple = 96}) ==
        sizes{864, 1056, 1248, 1440, 1632, 1824, 2016, 2208});
  CHECK(sizes(widths::geometric{.count = 3, .total = 13, .ratio = 3}) == sizes{1, 3, 9});
  CHECK(sizes(widths::geometric{.count = 4, .total = 20, .ratio = 1}) == sizes(4, 5));
  CHECK(sizes(widths::hybrid{.count = 4, .total = 8}) == sizes{1, 1, 2, 4});
}

TEST_CASE("an impossible request says what would be possible") {
  const std::string uneven = complaint([] { (void)widths::apportion({1, 2}, 100, 32); });
  CHECK(contains(uneven, "widths of 2 experts cannot sum to 100 in multiples of 32"));
  CHECK(contains(uneven, "96 or 128"));
  CHECK_NOTHROW((void)widths::apportion({1, 2}, 96, 32));
  CHECK_NOTHROW((void)widths::apportion({1, 2}, 128, 32));

  const std::string small = complaint([] { (void)widths::apportion({1, 2, 3}, 32, 32); });
  CHECK(contains(small, "multiples of 32 from 96 on"));
  CHECK_NOTHROW((void)widths::apportion({1, 2, 3}, 96, 32));
  CHECK_THROWS_AS((void)widths::apportion({1, 2, 3}, 0), hmoe::error);

  CHECK(contains(complaint([] { (void)sizes(widths::uniform{.count = 8, .total = 100}); }),
                 "8 equal widths cannot sum to 100: possible are 96 or 104"));
  CHECK(contains(complaint([] { (void)sizes(widths::uniform{.count = 8, .total = 5}); }), "8"));
  CHECK(
      contains(complaint([] { (void)sizes(widths::hybrid{.count = 6, .total = 100}); }), "not 6: possible are 4 or 8"));
  CHECK_THROWS_AS((void)sizes(widths::hybrid{.count = 0, .total = 100}), hmoe::error);

  CHECK(contains(complaint([] { (void)widths::apportion({}, 100); }), "0 experts"));
  CHECK(contains(complaint([] { (void)widths::apportion({1}, 100, 0); }), "multiples of 0"));
  CHECK_THROWS_AS((void)sizes(widths::arithmetic{.count = 0, .total = 9}), hmoe::error);
  CHECK_THROWS_AS((void)sizes(widths::uniform{.count = 0, .total = 9}), hmoe::error);
}

TEST_CASE("no two equal choices are offered") {
  for (const auto& text : {complaint([] { (void)widths::apportion({1, 2, 3}, 32, 32); }),
                           complaint([] { (void)sizes(widths::uniform{.count = 8, .total = 5}); }),
                           complaint([] { (void)sizes(widths::hybrid{.count = 2, .total = 100}); })}) {
    CAPTURE(text);
    CHECK(!text.empty());
    CHECK(!contains(text, "96 or 96"));
    CHECK(!contains(text, "8 or 8"));
    CHECK(!contains(text, "4 or 4"));
  }
}

TEST_CASE("relative sizes must be positive numbers whose sum is one too") {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  CHECK(contains(complaint([] { (void)widths::apportion({1, 0}, 10); }), "relative width 1 is 0"));
  CHECK(contains(complaint([] { (void)widths::apportion({-2, 1}, 10); }), "relative width 0 is -2"));
  CHECK_THROWS_AS((void)widths::apportion({1, infinity}, 10), hmoe::error);
  CHECK_THROWS_AS((void)widths::apportion({std::numeric_limits<double>::quiet_NaN()}, 10), hmoe::error);
  CHECK_THROWS_AS((void)sizes(widths::arithmetic{.count = 3, .total = 30, .first = 1, .last = -1}), hmoe::error);
  CHECK_THROWS_AS((void)sizes(widths::geometric{.count = 3, .total = 30, .ratio = 0}), hmoe::error);
  // Each finite, but not their sum, or not the share of one: better refused than shared out evenly.
  CHECK_THROWS_AS((void)widths::apportion({1e308, 1.7e308}, 10), hmoe::error);
  CHECK_THROWS_AS((void)sizes(widths::geometric{.count = 1024, .total = 4096}), hmoe::error);
  CHECK_THROWS_AS((void)widths::apportion({5e-324, 5e-324}, 10), hmoe::error);
}

TEST_CASE("widths fixed at compile time") {
  using two = widths::fixed<864, 1056>;
  static_assert(two::count == 2 && two::total == 1920 && two::values[1] == 1056);
  static_assert(two::offsets == std::array<std::size_t, 3>{0, 864, 1920});
  static_assert(two::parameters(0, 768) == 3 * 768 * 864 && two::parameters(1, 768, 1) == 2 * 768 * 1056);
  static_assert(two::flops_per_row(0, 10) == 2.0 * 3 * 10 * 864);
  static_assert(two::total_parameters(768) == 3 * 768 * 1920);
  using pruned = widths::fixed<4, 0, 7, 5>; // width 0: an expert that was pruned away
  static_assert(pruned::most_activated_parameters(2, 2) == 3 * 2 * (7 + 5));
  static_assert(pruned::least_activated_parameters(2, 2, 1) == 2 * 2 * (0 + 4));
  static_assert(pruned::most_activated_parameters(2, 4) == pruned::total_parameters(2));
  CHECK(sizes(two{}) == sizes{864, 1056});
}
