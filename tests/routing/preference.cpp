// SPDX-License-Identifier: MIT
#include <hmoe/routing/preference.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <vector>

using hmoe::index_t;
namespace routing = hmoe::routing;

namespace {
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
} // namespace

TEST_CASE("the order of preference is a strict weak order") {
  const std::vector<double> values{1, 1, 2, not_a_number, not_a_number, -1, std::numeric_limits<double>::infinity()};
  for (index_t a = 0; a < values.size(); ++a)
    for (index_t b = 0; b < values.size(); ++b) {
      CHECK(routing::preferred(values[a], a, values[b], b) + routing::preferred(values[b], b, values[a], a) ==
            (a == b ? 0 : 1));
      for (index_t c = 0; c < values.size(); ++c)
        if (routing::preferred(values[a], a, values[b], b) && routing::preferred(values[b], b, values[c], c))
          CHECK(routing::preferred(values[a], a, values[c], c));
    }
}
