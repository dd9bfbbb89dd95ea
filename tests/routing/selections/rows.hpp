// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/vector_view.hpp>

#include "support/random_matrix.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

namespace rows {

using hmoe::index_t;
using hmoe::vector_view;

inline constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

template <class T, class Selection> std::vector<index_t> choose(const Selection& select, const std::vector<T>& row) {
  std::vector<index_t> chosen(row.size());
  chosen.resize(select(vector_view<const T>(row), vector_view<index_t>(chosen)));
  return chosen;
}

/// Ids by descending value, ties by ascending id, NaN last: by sorting.
template <class T> std::vector<index_t> by_preference(const std::vector<T>& row) {
  std::vector<index_t> ids(row.size());
  std::iota(ids.begin(), ids.end(), index_t{0});
  std::sort(ids.begin(), ids.end(), [&](index_t a, index_t b) {
    const double left = std::isnan(row[a]) ? -1e300 : double{row[a]},
                 right = std::isnan(row[b]) ? -1e300 : double{row[b]};
    return left != right ? left > right : a < b;
  });
  return ids;
}

/// A row of probabilities; every other one has a few levels only, so that ties abound.
template <class T> std::vector<T> random_row(support::random_source& random, std::size_t round) {
  std::vector<T> row(random.size(1, 12));
  T sum = 0;
  for (T& value : row) {
    const double v = random.real(0, 1);
    value = static_cast<T>(round % 2 == 0 ? std::floor(v * 3) + 0.5 : v + 1e-3);
    sum += value;
  }
  for (T& value : row)
    value /= sum;
  return row;
}

inline std::string error_of(const auto& select, std::size_t experts) {
  try {
    select.validate(experts);
  } catch (const hmoe::error& e) {
    return e.what();
  }
  return "";
}

} // namespace rows
