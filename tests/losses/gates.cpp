// SPDX-License-Identifier: MIT
#include <hmoe/losses/gates.hpp>

#include "support/finite_differences.hpp"

#include <doctest/doctest.h>

#include <vector>

namespace losses = hmoe::losses;
using hmoe::index_t;
using hmoe::vector_view;
using losses::gate_values;

namespace {
const std::vector<index_t> chosen{0, 2, 5}; // 5 is a shared expert
const std::vector<double> probabilities{0.5, 0.2, 0.3, 0.1}, slopes{1, 20, -3, 40};

/// Σ slope · gate over the selected experts.
double value(gate_values kind, const std::vector<double>& p) {
  const double divisor =
      losses::detail::gate_divisor(kind, vector_view<const double>(p), vector_view<const index_t>(chosen));
  return slopes[0] * losses::detail::gate_of(p[0], divisor) + slopes[2] * losses::detail::gate_of(p[2], divisor);
}
} // namespace

TEST_CASE("gates are the selected probabilities, or those divided by their sum") {
  CHECK(value(gate_values::selected, probabilities) == doctest::Approx(0.5 - 0.9));
  CHECK(value(gate_values::renormalized, probabilities) == doctest::Approx((0.5 - 0.9) / 0.8));
  CHECK(value(gate_values::renormalized, {0, 1, 0, 1}) == 0); // nothing to divide by
}

TEST_CASE("their gradient is added, to the selected experts only") {
  for (const gate_values kind : {gate_values::selected, gate_values::renormalized}) {
    std::vector<double> p = probabilities, d_p(4, 7);
    const double divisor =
        losses::detail::gate_divisor(kind, vector_view<const double>(p), vector_view<const index_t>(chosen));
    losses::detail::add_selected_gates_gradient(kind, divisor, vector_view<const double>(p),
                                                vector_view<const index_t>(chosen), vector_view<const double>(slopes),
                                                vector_view<double>(d_p));
    for (std::size_t e = 0; e < 4; ++e)
      CHECK(d_p[e] - 7 ==
            doctest::Approx(support::central_difference(p[e], [&] { return value(kind, p); })).epsilon(1e-7));
  }
}
