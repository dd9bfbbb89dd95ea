// SPDX-License-Identifier: MIT
#include <hmoe/testing/probes.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <mutex>
#include <vector>

namespace testing = hmoe::testing;

TEST_CASE("a guarded matrix notices what is written beside it") {
  testing::guarded_matrix<float> m(2, 3, {1, 2, 3, 4, 5, 6});
  CHECK(m.values() == std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK(m.margins_intact());
  m.view()(1, 2) = 9;
  CHECK(m.margins_intact());
  SUBCASE("behind a row") { m.view().row(0).data()[3] = 0; }
  SUBCASE("behind the last row") { m.view().row(1).data()[3] = 0; }
  SUBCASE("before the first row") { m.view().data()[-1] = 0; }
  SUBCASE("a row too many") { m.view().data()[2 * m.view().stride()] = 0; }
  CHECK(!m.margins_intact());
}

TEST_CASE("what nobody wrote is NaN") {
  const testing::guarded_matrix<double> m(1, 2);
  CHECK(!testing::all_finite(m.values()));
}

TEST_CASE("relative error is measured by the largest value") {
  using values = std::vector<double>;
  CHECK(testing::relative_error(values{100, 1}, values{100, 2}) == doctest::Approx(0.01));
  CHECK(testing::relative_error(values{0, 0}, values{0, 1e-12}) < 1e-6);
  CHECK(testing::relative_error(values{1}, values{1, 2}) == std::numeric_limits<double>::infinity());
  CHECK(testing::relative_error(values{std::nan("")}, values{1}) == std::numeric_limits<double>::infinity());
  CHECK(testing::relative_error(values{}, values{}) == 0);
}

TEST_CASE("finite differences find the derivative and put everything back") {
  std::vector<double> x{0.5, -1.25};
  const auto slopes =
      testing::finite_differences(hmoe::vector_view<double>(x), [&] { return x[0] * x[0] * std::exp(x[1]); });
  CHECK(slopes[0] == doctest::Approx(2 * 0.5 * std::exp(-1.25)).epsilon(1e-8));
  CHECK(slopes[1] == doctest::Approx(0.25 * std::exp(-1.25)).epsilon(1e-8));
  CHECK(x == std::vector<double>{0.5, -1.25});
}

TEST_CASE("repeatable notices state") {
  int calls = 0;
  std::mutex guard;
  CHECK(testing::repeatable([] { return std::vector<float>{1, 2}; }));
  CHECK(!testing::repeatable([&] {
    const std::scoped_lock lock(guard);
    return std::vector<int>{calls++};
  }));
  CHECK(!testing::repeatable([&] { // the same at first, different on some thread
    const std::scoped_lock lock(guard);
    return std::vector<int>{calls++ < 4 ? 0 : 1};
  }));
}

TEST_CASE("a guarded array notices what is written beside it") {
  testing::guarded_array<unsigned> a(3, 7U);
  CHECK(a.values() == std::vector<unsigned>{7, 7, 7});
  a.view()[2] = 1;
  CHECK(a.margins_intact());
  SUBCASE("behind it") { a.view().data()[3] = 0; }
  SUBCASE("before it") { a.view().data()[-1] = 0; }
  CHECK(!a.margins_intact());
  CHECK(std::isnan(testing::guarded_array<double>(1).values()[0]));
  testing::guarded_array<float> empty(0);
  empty.view().data()[0] = 0;
  CHECK(!empty.margins_intact());
}

TEST_CASE("the largest difference is told with its place") {
  using values = std::vector<double>;
  CHECK(testing::largest_difference(values{1, 2, 3, 4}, values{1, 2, 3.5, 4.25}) == "at [2]: got 3, expected 3.5");
  CHECK(testing::largest_difference(values{1, 2, 3, 4}, values{1, 2, 3.5, 4.25}, 2) ==
        "at [1, 0]: got 3, expected 3.5");
  CHECK(testing::largest_difference(values{1, std::nan(""), 3}, values{9, 2, 3}) == "at [1]: got nan, expected 2");
  CHECK(testing::largest_difference(values{1}, values{1, 2}) == "in size: got 1 values, expected 2");
  CHECK(testing::largest_difference(values{}, values{}) == "nowhere");
}
