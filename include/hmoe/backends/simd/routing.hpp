// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd/elementwise.hpp>
#include <hmoe/backends/simd/exponential.hpp>
#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/score_functions.hpp>
#include <hmoe/routing/selections.hpp>

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

/// What a router looks for in a backend (hmoe/routing/score.hpp, selection.hpp), for one token: score(function, z, p)
/// and select(selection, p, chosen). Selections choose exactly what the plain ones do.
/// Rows that do not fill a vector are left to the plain functions, which take less time for them.
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

  template <std::size_t K, class T>
  static std::size_t select(const routing::top_k<K>& policy, vector_view<const T> p,
                            vector_view<index_t> chosen) noexcept {
    preference<xsimd::batch<T, Arch>> row(p);
    for (std::size_t i = 0; i < policy.k(); ++i) {
      chosen[i] = row.take();
      if (chosen[i] == no_index)
        return policy(p, chosen);
    }
    return policy.k();
  }
  template <class T>
  static std::size_t select(const routing::top_p& policy, vector_view<const T> p,
                            vector_view<index_t> chosen) noexcept {
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
};

} // namespace hmoe::backends::simd_detail
