// SPDX-License-Identifier: MIT
#include <hmoe/testing/widths_laws.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

namespace {
enum class fault { none, nobody, too_few, wrong_sum, no_multiple, zero, lopsided, descends, shrinks, drifts, throws };
using sizes = std::vector<std::size_t>;

/// 1 : 2 : 3 of `total`, which is divisible by 12, with one thing wrong.
struct ascending {
  std::size_t total = 24;
  std::size_t count = 3;
  std::size_t multiple = 2;
  fault has = fault::none;
  static inline std::atomic<std::size_t> calls = 0;

  operator sizes() const {
    const std::size_t unit = total / 6;
    switch (has) {
    case fault::nobody:
      return {};
    case fault::too_few:
      return {unit * 3, unit * 3};
    case fault::wrong_sum:
      return {unit, 2 * unit, 3 * unit + 2};
    case fault::no_multiple:
      return {unit - 1, 2 * unit + 1, 3 * unit};
    case fault::zero:
      return {0, 3 * unit, 3 * unit};
    case fault::lopsided:
      return {unit - 2, 2 * unit, 3 * unit + 2};
    case fault::descends:
      return {3 * unit, 2 * unit, unit};
    case fault::shrinks:
      return total == 24 ? sizes{4, 8, 12} : sizes{2, 8, total - 10};
    case fault::drifts:
      return ++calls % 2 == 0 ? sizes{unit, 2 * unit, 3 * unit} : sizes{unit + 2, 2 * unit, 3 * unit - 2};
    case fault::throws:
      throw std::runtime_error("out of order");
    default:
      return {unit, 2 * unit, 3 * unit};
    }
  }
};
std::string laws(fault has, const hmoe::testing::widths_options& options = {}) {
  return hmoe::testing::check_widths(ascending{.has = has}, options).text();
}
bool names(const std::string& text, const char* law) { return text.find(law) != std::string::npos; }
} // namespace

TEST_CASE("a sound size strategy keeps the laws, and so does a plain list") {
  CHECK(laws(fault::none, {.relative = {1, 2, 3}}) == "");
  CHECK(hmoe::testing::check_widths(sizes{3, 1, 4}).text() == "");
}

TEST_CASE("each fault of a size strategy is named") {
  const hmoe::testing::widths_options one_two_three{.relative = {1, 2, 3}};
  CHECK(names(laws(fault::nobody), "there is at least one expert"));
  CHECK(names(laws(fault::too_few), "there are `count` widths: count is 3, it gives 2"));
  CHECK(names(laws(fault::too_few, one_two_three), "there is a width for each relative size"));
  CHECK(names(laws(fault::wrong_sum), "the widths sum to `total`: total is 24, they sum to 26"));
  CHECK(names(laws(fault::no_multiple), "widths are multiples of `multiple`: expert 0 has width 3"));
  CHECK(names(laws(fault::zero), "no expert is narrower than the narrowest: expert 0 has width 0"));
  CHECK(laws(fault::zero, {.narrowest = 0}) == "");
  CHECK(laws(fault::lopsided) == "");
  CHECK(
      names(laws(fault::lopsided, one_two_three),
            "widths are in proportion to the relative sizes: expert 0 has width 2, its share is 4 in multiples of 2"));
  CHECK(names(laws(fault::descends, one_two_three), "the larger size gets no smaller width: experts 0 and 1 have"));
  CHECK(names(laws(fault::shrinks), "no width shrinks when total is doubled: expert 0 had width 4 of 24 and has 2"));
  CHECK(names(laws(fault::drifts), "gives the same widths every time"));
  CHECK(names(laws(fault::throws), "works without an exception: an exception was thrown: out of order"));
}
