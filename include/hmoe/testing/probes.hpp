// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/matrix.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/testing/reversed_threads.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstring>
#include <functional>
#include <limits>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

/// What the laws measure with.
namespace hmoe::testing {

/// Gradients must agree with finite differences to this, relative to the largest component of the tensor.
template <class T> inline constexpr double gradient_tolerance = std::same_as<T, double> ? 1e-6 : 2e-2;
/// Two ways to compute the same number in another order must agree to this.
template <class T> inline constexpr double rounding_tolerance = 1e4 * double{std::numeric_limits<T>::epsilon()};

/// `count` normal numbers; another stream gives others.
template <class T>
[[nodiscard]] std::vector<T> random_values(std::size_t count, std::uint64_t stream, double scale = 1) {
  std::vector<T> values(count);
  fill_normal(vector_view<T>(values), scale, seed{0x686d6f65}, stream);
  return values;
}

/// A rows × cols matrix in the middle of memory whose margins must stay as they are. Its rows are not contiguous and
/// it starts out as NaN, so that what nobody wrote, or read too early, shows.
template <class T> class guarded_matrix {
public:
  guarded_matrix(std::size_t rows, std::size_t cols)
      : rows_(rows), cols_(cols), stride_(cols + 3), values_((rows + 2) * stride_, margin) {
    fill(std::numeric_limits<T>::quiet_NaN());
  }
  /// With these values, row after row.
  guarded_matrix(std::size_t rows, std::size_t cols, const std::vector<T>& values) : guarded_matrix(rows, cols) {
    for (std::size_t i = 0; i < values.size(); ++i)
      view()(i / cols, i % cols) = values[i];
  }

  [[nodiscard]] matrix_view<T> view() noexcept { return {values_.data() + stride_, rows_, cols_, stride_}; }
  [[nodiscard]] matrix_view<const T> view() const noexcept { return {values_.data() + stride_, rows_, cols_, stride_}; }
  void fill(T value) noexcept {
    for (std::size_t r = 0; r < rows_; ++r)
      std::fill(view().row(r).begin(), view().row(r).end(), value);
  }
  /// The matrix without its margins, row after row.
  [[nodiscard]] std::vector<T> values() const {
    std::vector<T> result;
    for (std::size_t r = 0; r < rows_; ++r)
      result.insert(result.end(), view().row(r).begin(), view().row(r).end());
    return result;
  }
  [[nodiscard]] bool margins_intact() const noexcept {
    for (std::size_t i = 0; i < values_.size(); ++i) {
      const std::size_t row = i / stride_, col = i % stride_;
      const bool inside = row >= 1 && row <= rows_ && col < cols_;
      if (!inside && values_[i] != margin)
        return false;
    }
    return true;
  }

private:
  static constexpr T margin = T(-24680.5);
  std::size_t rows_, cols_, stride_;
  std::vector<T> values_;
};

/// An array between margins that must stay as they are; all its values start out as `initial`.
template <class V> class guarded_array {
public:
  explicit guarded_array(std::size_t count, V initial = unwritten()) : count_(count), values_(count + 8, margin) {
    std::fill_n(values_.begin() + 4, count, initial);
  }
  [[nodiscard]] vector_view<V> view() noexcept { return {values_.data() + 4, count_}; }
  [[nodiscard]] vector_view<const V> view() const noexcept { return {values_.data() + 4, count_}; }
  [[nodiscard]] std::vector<V> values() const { return {values_.begin() + 4, values_.end() - 4}; }
  [[nodiscard]] bool margins_intact() const noexcept {
    const auto is_margin = [](V value) { return value == margin; };
    return std::all_of(values_.begin(), values_.begin() + 4, is_margin) &&
           std::all_of(values_.end() - 4, values_.end(), is_margin);
  }
  /// NaN, or the largest number of a type that has none.
  [[nodiscard]] static constexpr V unwritten() noexcept {
    return std::numeric_limits<V>::has_quiet_NaN ? std::numeric_limits<V>::quiet_NaN() : std::numeric_limits<V>::max();
  }

private:
  static constexpr V margin = static_cast<V>(1357924);
  std::size_t count_;
  std::vector<V> values_;
};

/// Whether two arrays have the same bits.
template <class A, class B> [[nodiscard]] bool same_bits(const A& a, const B& b) noexcept {
  static_assert(std::same_as<std::remove_cvref_t<decltype(*a.data())>, std::remove_cvref_t<decltype(*b.data())>>,
                "hmoe::testing::same_bits compares arrays of one type");
  return a.size() == b.size() && (a.size() == 0 || std::memcmp(a.data(), b.data(), a.size() * sizeof(*a.data())) == 0);
}

template <class Values> [[nodiscard]] bool all_finite(const Values& values) noexcept {
  return std::all_of(values.begin(), values.end(), [](auto v) { return std::isfinite(v); });
}

/// max |a_i − b_i| over the largest magnitude among both; infinite when the sizes differ or something is not finite.
template <class A, class B> [[nodiscard]] double relative_error(const A& a, const B& b) noexcept {
  if (a.size() != b.size() || !all_finite(a) || !all_finite(b))
    return std::numeric_limits<double>::infinity();
  double largest = 0, difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto left = static_cast<double>(a[i]), right = static_cast<double>(b[i]);
    largest = std::max({largest, std::abs(left), std::abs(right)});
    difference = std::max(difference, std::abs(left - right));
  }
  // A tensor whose true gradient is zero is compared absolutely.
  return difference / std::max(largest, 1e-3);
}

/// Where two arrays differ most and what stands there: "at [2, 1]: got 3, expected 4", for matrices of `cols` columns;
/// without columns "at [7]: …".
template <class A, class B>
[[nodiscard]] std::string largest_difference(const A& got, const B& expected, std::size_t cols = 0) {
  if (got.size() != expected.size())
    return "in size: got " + std::to_string(got.size()) + " values, expected " + std::to_string(expected.size());
  std::size_t worst = 0;
  double largest = -1;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
    if (difference > largest || std::isnan(difference)) {
      worst = i;
      largest = difference;
      if (std::isnan(difference))
        break;
    }
  }
  if (got.size() == 0)
    return "nowhere";
  std::ostringstream text;
  text.precision(9);
  text << "at [";
  if (cols != 0)
    text << worst / cols << ", " << worst % cols;
  else
    text << worst;
  text << "]: got " << got[worst] << ", expected " << expected[worst];
  return text.str();
}

/// ∂ loss() / ∂ at[i] by central differences, in steps of 1e-5 (float: 2e-3, which shows coarse mistakes only); loss
/// reads the values through `at`, which are put back afterwards.
template <class T, class Loss> [[nodiscard]] std::vector<double> finite_differences(vector_view<T> at, Loss&& loss) {
  const T step = std::same_as<T, double> ? T(1e-5) : T(2e-3);
  std::vector<double> result(at.size());
  for (std::size_t i = 0; i < at.size(); ++i) {
    const T middle = at[i], above = middle + step, below = middle - step;
    at[i] = above;
    const double high = loss();
    at[i] = below;
    const double low = loss();
    at[i] = middle;
    result[i] = (high - low) / (static_cast<double>(above) - static_cast<double>(below));
  }
  return result;
}

/// Σ a_i b_i, the stand-in for a training loss: its gradient with respect to a is b.
template <class A, class B> [[nodiscard]] double inner_product(const A& a, const B& b) noexcept {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

/// Whether compute() returns the same bits again, and on several threads at once.
template <class Compute> [[nodiscard]] bool repeatable(Compute&& compute) {
  const auto expected = compute();
  if (!same_bits(expected, compute()))
    return false;
  std::vector<std::remove_cvref_t<decltype(expected)>> results(3);
  reversed_threads(results.size()).for_each(results.size(), [&](std::size_t i, std::size_t) {
    results[i] = compute();
  });
  return std::all_of(results.begin(), results.end(), [&](const auto& r) { return same_bits(r, expected); });
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
