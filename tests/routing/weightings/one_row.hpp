// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/weighting.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <vector>

namespace one_row {

using hmoe::index_t;
using hmoe::vector_view;

inline const std::vector<double> logits{0.5, -1, 2, 0.25}, p{0.1, 0.2, 0.4, 0.3};
inline const std::vector<index_t> chosen{0, 2, 3};

template <class Weighting> std::vector<double> weights(const Weighting& weighting, std::vector<index_t> of = chosen) {
  std::vector<double> w(of.size());
  std::vector<double> scratch(hmoe::routing::weighting_scratch(weighting, p.size()));
  hmoe::routing::weigh(weighting, vector_view<const double>(logits), vector_view<const double>(p),
                       vector_view<const index_t>(of), vector_view<double>(w), vector_view<double>(scratch));
  return w;
}
inline void check_equal(const std::vector<double>& got, const std::vector<double>& expected) {
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    CHECK(got[i] == doctest::Approx(expected[i]).epsilon(1e-13));
}
inline double sigma(double z) { return 1 / (1 + std::exp(-z)); }

} // namespace one_row
