// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/selection.hpp>

#include "support/random_matrix.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

namespace coarse {

namespace routing = hmoe::routing;
using hmoe::index_t;
using hmoe::vector_view;
using ids = std::vector<std::size_t>;

template <class T, class Selection> ids choose(const Selection& select, const std::vector<T>& row) {
  std::vector<index_t> chosen(row.size());
  std::vector<T> scratch(routing::selection_scratch(select, row.size()), std::numeric_limits<T>::quiet_NaN());
  const std::size_t count =
      routing::select_row(select, vector_view<const T>(row), vector_view<index_t>(chosen), vector_view<T>(scratch));
  ids result(chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(count));
  std::sort(result.begin(), result.end());
  return result;
}

/// Ids in descending value, the lower id first on ties.
inline ids ranking(const std::vector<double>& values) {
  ids order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return values[a] != values[b] ? values[a] > values[b] : a < b; });
  return order;
}
inline ids best(const std::vector<double>& values, std::size_t k) {
  ids order = ranking(values);
  order.resize(k);
  std::sort(order.begin(), order.end());
  return order;
}

/// Values in steps of 1/4, so that ties are frequent and sums exact.
inline std::vector<double> coarse_row(support::random_source& random, std::size_t n, double low, double high) {
  std::vector<double> row(n);
  for (double& value : row)
    value = std::round(random.real(low, high) * 4) / 4;
  return row;
}

} // namespace coarse
