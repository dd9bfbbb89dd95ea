// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <cstddef>

namespace hmoe::backends::simd_detail {

/// The elements [at, at + V::size) of a row.
template <class V> struct whole_vector {
  using scalar = typename V::value_type;
  std::size_t at;

  [[nodiscard]] V load(const scalar* row, scalar = 0) const noexcept { return V::load_unaligned(row + at); }
  void store(const V& values, scalar* row) const noexcept { values.store_unaligned(row + at); }
};

/// The last `count` < V::size elements of a row; `absent` stands in for the others.
template <class V> struct part_of_vector {
  using scalar = typename V::value_type;
  std::size_t at, count;

  [[nodiscard]] V load(const scalar* row, scalar absent = 0) const noexcept {
    alignas(V) scalar padded[V::size];
    V(absent).store_aligned(padded);
    std::copy_n(row + at, count, padded);
    return V::load_aligned(padded);
  }
  void store(const V& values, scalar* row) const noexcept {
    alignas(V) scalar padded[V::size];
    values.store_aligned(padded);
    std::copy_n(padded, count, row + at);
  }
};

/// step(lanes) for each vector of a row of `size` elements; lanes.load(row) and lanes.store(values, row) move them. The
/// rest of the row goes through the same arithmetic as all others: an element's bits do not depend on where it stands.
template <class V, class Step>
[[gnu::always_inline]] inline void for_each_vector(std::size_t size, const Step& step) noexcept {
  std::size_t i = 0;
  for (; i + V::size <= size; i += V::size)
    step(whole_vector<V>{i});
  if (i < size)
    step(part_of_vector<V>{i, size - i});
}

/// f(f(lane 0, lane 1), lane 2) …
template <class V, class F> [[nodiscard]] typename V::value_type reduce(const V& values, F&& f) noexcept {
  alignas(V) typename V::value_type lanes[V::size];
  values.store_aligned(lanes);
  for (std::size_t i = 1; i < V::size; ++i)
    lanes[0] = f(lanes[0], lanes[i]);
  return lanes[0];
}

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
