// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/elementwise.hpp>
#include <hmoe/backends/simd/exponential.hpp>
#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/preference.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/score_functions/softmax.hpp>
#include <hmoe/routing/selection.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/selections/group_limited.hpp>
#include <hmoe/routing/selections/top_k.hpp>
#include <hmoe/routing/selections/top_p.hpp>

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>

namespace hmoe::backends::simd_detail {

/// A row of probabilities from which the most preferred one is taken again and again: the largest, of equals the one
/// with the lowest id.
template <class V> class preference {
public:
  using scalar = typename V::value_type;

  explicit preference(vector_view<const scalar> row) noexcept {
    if (row.size() < V::size || row.size() > most)
      return;
    auto unordered = xsimd::isnan(V(scalar(0))); // xsimd 8.1 says NaN != NaN is false with AVX-512
    for_each_vector<V>(row.size(), [&](const auto& lanes) {
      const V values = lanes.load(row.data(), taken);
      unordered = unordered | xsimd::isnan(values);
      values.store_aligned(left_ + lanes.at);
    });
    if (!xsimd::any(unordered))
      vectors_ = (row.size() + V::size - 1) / V::size;
  }

  /// no_index when the order among what is left is not for this class to know: −∞, NaN, rows that are too short or too
  /// long.
  [[nodiscard]] index_t take() noexcept {
    if (vectors_ == 0)
      return no_index;
    V best(taken);
    for (std::size_t v = 0; v < vectors_; ++v)
      best = xsimd::max(best, V::load_aligned(left_ + v * V::size));
    const scalar largest = reduce(best, [](scalar a, scalar b) { return a > b ? a : b; });
    if (largest == taken)
      return no_index;
    std::size_t i = 0;
    while (!xsimd::any(V::load_aligned(left_ + i) == V(largest)))
      i += V::size;
    while (left_[i] != largest)
      ++i;
    left_[i] = taken;
    return static_cast<index_t>(i);
  }

private:
  static constexpr std::size_t most = 1024;
  static constexpr scalar taken = -std::numeric_limits<scalar>::infinity();

  alignas(V) scalar left_[most];
  std::size_t vectors_ = 0;
};

/// The largest value of a row without NaN, and the sum of its two largest.
template <class V> struct largest_values {
  using scalar = typename V::value_type;
  scalar first = lowest, second = lowest;

  explicit largest_values(vector_view<const scalar> row) noexcept {
    if (row.size() >= V::size) {
      V best(lowest), next(lowest);
      for_each_vector<V>(row.size(), [&](const auto& lanes) {
        const V values = lanes.load(row.data(), lowest);
        next = xsimd::max(next, xsimd::min(best, values));
        best = xsimd::max(best, values);
      });
      alignas(V) scalar left[2][V::size];
      best.store_aligned(left[0]);
      next.store_aligned(left[1]);
      for (const auto& lanes : left)
        for (const scalar value : lanes)
          take(value);
    } else {
      for (const scalar value : row)
        take(value);
    }
  }

private:
  static constexpr scalar lowest = -std::numeric_limits<scalar>::infinity();
  void take(scalar value) noexcept {
    second = std::max(second, std::min(first, value));
    first = std::max(first, value);
  }
};

/// The operations `score` and `select` (hmoe/execution/operations.hpp). Selections choose exactly what the plain ones
/// do. Rows that do not fill a vector are left to the plain functions, which take less time for them.
template <class Arch> struct routing_rows {
  template <class T>
  static void score(const routing::softmax& plain, vector_view<const T> z, vector_view<T> p) noexcept {
    using vec = xsimd::batch<T, Arch>;
    if (z.size() < vec::size)
      return plain.forward(z, p);
    constexpr T lowest = -std::numeric_limits<T>::infinity();
    vec best(lowest);
    for_each_vector<vec>(z.size(), [&](const auto& lanes) {
      const vec values = lanes.load(z.data(), lowest);
      best = xsimd::select(values > best, values, best); // NaN is not larger; it shows in the sum
    });
    const vec largest(reduce(best, [](T a, T b) { return a > b ? a : b; }));
    vec sums(T(0));
    for_each_vector<vec>(z.size(), [&](const auto& lanes) {
      const vec power = exponential<argument::never_positive>(lanes.load(z.data(), lowest) - largest);
      sums = sums + power;
      lanes.store(power, p.data());
    });
    const vec sum(reduce(sums, [](T a, T b) { return a + b; }));
    for_each_vector<vec>(z.size(), [&](const auto& lanes) { lanes.store(lanes.load(p.data()) / sum, p.data()); });
  }
  template <class T>
  static void score(const routing::sigmoid& plain, vector_view<const T> z, vector_view<T> p) noexcept {
    using vec = xsimd::batch<T, Arch>;
    if (z.size() < vec::size)
      return plain.forward(z, p);
    for_each_vector<vec>(z.size(),
                         [&](const auto& lanes) { lanes.store(logistic(lanes.load(z.data())).sigma, p.data()); });
  }

  /// Functions and selections without a form below.
  template <class Function, class T>
  static void score(const Function& plain, vector_view<const T> z, vector_view<T> p) {
    plain.forward(z, p);
  }
  template <class Selection, class T>
  static std::size_t select(const Selection& policy, vector_view<const T> p, vector_view<index_t> chosen,
                            vector_view<T> scratch) {
    return routing::select_row(policy, p, chosen, scratch);
  }

  template <std::size_t K, std::size_t N, class T>
  static std::size_t select(const routing::top_k<K, N>& policy, vector_view<const T> p, vector_view<index_t> chosen,
                            vector_view<T>) noexcept {
    preference<xsimd::batch<T, Arch>> row(p);
    for (std::size_t i = 0; i < policy.k(); ++i) {
      chosen[i] = row.take();
      if (chosen[i] == no_index)
        return policy(p, chosen);
    }
    return policy.k();
  }
  template <class T>
  static std::size_t select(const routing::top_p& policy, vector_view<const T> p, vector_view<index_t> chosen,
                            vector_view<T>) noexcept {
    preference<xsimd::batch<T, Arch>> row(p);
    double sum = 0;
    std::size_t count = 0;
    do {
      const index_t next = row.take();
      if (next == no_index)
        return policy(p, chosen);
      chosen[count++] = next;
      sum += static_cast<double>(p[next]);
    } while (!(sum >= policy.p) && count < p.size());
    return count;
  }

  /// The sums are those of the plain selection, and what chooses among them may have a form of its own.
  template <class T, class Selection>
  static std::size_t select(const routing::biased<T, Selection>& policy, vector_view<const T> p,
                            vector_view<index_t> chosen, vector_view<T> scratch) {
    const vector_view<T> sums = scratch.subview(0, p.size());
    for_each_vector<xsimd::batch<T, Arch>>(p.size(), [&](const auto& lanes) {
      lanes.store(lanes.load(p.data()) + lanes.load(policy.bias().data()), sums.data());
    });
    return routing::select_row(routing_rows{}, policy.inner(), vector_view<const T>(sums), chosen,
                               scratch.subview(p.size(), scratch.size() - p.size()));
  }

  template <routing::group_score Score, routing::group_mask Mask, class T>
  static std::size_t select(const routing::group_limited<Score, Mask>& policy, vector_view<const T> p,
                            vector_view<index_t> chosen, vector_view<T> scratch) noexcept {
    using vec = xsimd::batch<T, Arch>;
    constexpr T lowest = -std::numeric_limits<T>::infinity();
    auto special = xsimd::isnan(vec(T(0)));
    for_each_vector<vec>(p.size(), [&](const auto& lanes) {
      const vec values = lanes.load(p.data());
      special = special | xsimd::isnan(values) | (values == vec(lowest));
    });
    if (xsimd::any(special)) // their order is the plain selection's to know
      return policy(p, chosen, scratch);
    const std::size_t n = p.size(), size = n / policy.groups;
    const vector_view<T> values = scratch.subview(0, n), scores = scratch.subview(n, policy.groups);
    std::fill(values.begin(), values.end(), Mask == routing::group_mask::zero ? T(0) : lowest);
    for (std::size_t g = 0; g < policy.groups; ++g) {
      const largest_values<vec> best(p.subview(g * size, size));
      scores[g] = Score == routing::group_score::best ? best.first : best.first + best.second;
    }
    index_t group = no_index;
    for (std::size_t i = 0; i < policy.kept; ++i) {
      group = routing::next_preferred(vector_view<const T>(scores), group);
      std::copy_n(p.data() + group * size, size, values.data() + group * size);
    }
    preference<vec> row{vector_view<const T>(values)};
    for (std::size_t i = 0; i < policy.k; ++i) {
      chosen[i] = row.take();
      if (chosen[i] == no_index)
        return policy(p, chosen, scratch);
    }
    return policy.k;
  }
};

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
