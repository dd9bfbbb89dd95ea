// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <concepts>
#include <cstddef>
#include <span> // brings all that is used here of <ranges>, which takes longer to compile

namespace hmoe::statistics {

/// A list of numbers, one for each expert or for each value of a vocabulary: std::vector, std::span, vector_view.
template <class R>
concept number_list = std::ranges::random_access_range<R> && std::ranges::sized_range<R> &&
                      std::convertible_to<std::ranges::range_value_t<R>, double>;

namespace detail {

template <number_list Values> [[nodiscard]] double at(const Values& values, std::size_t i) {
  return static_cast<double>(std::ranges::begin(values)[static_cast<std::ranges::range_difference_t<Values>>(i)]);
}
template <number_list Values> [[nodiscard]] std::size_t count_of(const Values& values) {
  return static_cast<std::size_t>(std::ranges::size(values));
}
template <number_list Values> [[nodiscard]] double sum_of(const Values& values) {
  double sum = 0;
  for (const auto value : values)
    sum += static_cast<double>(value);
  return sum;
}

} // namespace detail
} // namespace hmoe::statistics

#include <hmoe/core/macros_on.hpp>
