// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/elementwise.hpp>
#include <hmoe/core/vector_view.hpp>

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <cstddef>

namespace hmoe::backends::simd_detail {

/// The operations of hmoe/execution/row_operations.hpp.
template <class Arch> struct row_operations {
  /// to += weight · from, one fused multiply-add per element
  template <class T> static void add_scaled(T weight, vector_view<const T> from, vector_view<T> to) noexcept {
    using vec = xsimd::batch<T, Arch>;
    for_each_vector<vec>(to.size(), [&](const auto& lanes) {
      lanes.store(xsimd::fma(vec(weight), lanes.load(from.data()), lanes.load(to.data())), to.data());
    });
  }
  /// to = Σ_i weight(i) · row(i), an empty row adding nothing: add_scaled in turn, with a block of columns in
  /// registers.
  template <class T, class Weight, class Row>
  static void weighted_sum(std::size_t count, const Weight& weight, const Row& row, vector_view<T> to) noexcept {
    using vec = xsimd::batch<T, Arch>;
    constexpr std::size_t vectors = 8, block = vectors * vec::size;
    std::size_t c = 0;
    for (; c + block <= to.size(); c += block) {
      vec sums[vectors];
      std::fill_n(sums, vectors, vec(T(0)));
      for (std::size_t i = 0; i < count; ++i) {
        const vector_view<const T> from = row(i);
        if (from.empty())
          continue;
        const vec factor(weight(i));
#pragma GCC unroll 8
        for (std::size_t v = 0; v < vectors; ++v)
          sums[v] = xsimd::fma(factor, vec::load_unaligned(from.data() + c + v * vec::size), sums[v]);
      }
#pragma GCC unroll 8
      for (std::size_t v = 0; v < vectors; ++v)
        sums[v].store_unaligned(to.data() + c + v * vec::size);
    }
    const vector_view<T> rest = to.subview(c, to.size() - c);
    std::fill(rest.begin(), rest.end(), T(0));
    for (std::size_t i = 0; i < count; ++i)
      if (const vector_view<const T> from = row(i); !from.empty())
        add_scaled(weight(i), from.subview(c, rest.size()), rest);
  }
  /// to = weight · from
  template <class T> static void copy_scaled(T weight, vector_view<const T> from, vector_view<T> to) noexcept {
    using vec = xsimd::batch<T, Arch>;
    for_each_vector<vec>(to.size(),
                         [&](const auto& lanes) { lanes.store(vec(weight) * lanes.load(from.data()), to.data()); });
  }
  /// Σ a_i b_i in four vectors of sums, which follow from the length of the rows alone
  template <class T> [[nodiscard]] static T dot(vector_view<const T> a, vector_view<const T> b) noexcept {
    using vec = xsimd::batch<T, Arch>;
    vec sums[4] = {vec(T(0)), vec(T(0)), vec(T(0)), vec(T(0))};
    std::size_t i = 0;
    for (; i + 4 * vec::size <= a.size(); i += 4 * vec::size)
#pragma GCC unroll 4
      for (std::size_t v = 0; v < 4; ++v)
        sums[v] = xsimd::fma(vec::load_unaligned(a.data() + i + v * vec::size),
                             vec::load_unaligned(b.data() + i + v * vec::size), sums[v]);
    for_each_vector<vec>(a.size() - i, [&](const auto& lanes) {
      sums[0] = xsimd::fma(lanes.load(a.data() + i), lanes.load(b.data() + i), sums[0]);
    });
    return reduce((sums[0] + sums[1]) + (sums[2] + sums[3]), [](T x, T y) { return x + y; });
  }
};

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
