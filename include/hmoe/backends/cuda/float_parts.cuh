// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/mma.cuh>

#include <cstdint>
#include <type_traits>

/// Products of floats on tensor cores with nearly float's precision: each float is taken in two tf32 parts,
///   v = high + low + rest,   |low| ≤ 2⁻¹¹ |v|,   |rest| ≤ 2⁻²³ |v|,
/// and a b = ah bh + (ah bl + al bh) + e with |e| ≤ 2⁻²¹ |a b|. Values of 16 bits are exact in tf32 and need no low
/// part: two products instead of three, |e| ≤ 2⁻²³ |a b|. Floats within 2⁻¹² of the largest one count as infinite.
namespace hmoe::backends::cuda_detail {

struct exact_fragment {
  tensor_fragment high;
};
struct fragment_parts {
  tensor_fragment high, low;
};
/// Of 16 rows or columns of S, 8 terms.
template <class S> using parts_of = std::conditional_t<sizeof(S) == 2, exact_fragment, fragment_parts>;

/// high: to nearest, ties away from zero. low: what is left, 12 bits at most, cut off after 11. Where high is infinite
/// or NaN, low is NaN.
[[nodiscard]] __device__ inline fragment_parts split(const tensor_fragment& values) {
  fragment_parts parts;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(parts.high.words[i]) : "f"(__uint_as_float(values.words[i])));
    const float rest = __uint_as_float(values.words[i]) - __uint_as_float(parts.high.words[i]);
    parts.low.words[i] = __float_as_uint(rest) & 0xffffe000U;
  }
  return parts;
}

/// high + low, the sums of ah bh and of the rest. An infinite or NaN factor shows in `high` as in a sum of floats.
[[nodiscard]] __device__ inline float join(float high, float low) { return isfinite(high) ? high + low : high; }

/// Row (or column) `i` of an operand, term k.
template <class Tile> [[nodiscard]] __device__ std::uint32_t load_word(const Tile& tile, int i, int k) {
  return __float_as_uint(to_float(Tile::k_major ? *tile.at(i, k) : *tile.at(k, i)));
}
template <class Tile> [[nodiscard]] __device__ auto make_parts(const tensor_fragment& values) {
  if constexpr (std::is_same_v<parts_of<typename Tile::value_type>, exact_fragment>)
    return exact_fragment{values};
  else
    return split(values);
}

/// 16 rows of the left operand, in the places where mma.sync m16n8k8 wants them.
template <class Tile> [[nodiscard]] __device__ auto load_row_parts(const Tile& tile, int m, int k0) {
  tensor_fragment values;
  if constexpr (Tile::k_major && sizeof(typename Tile::value_type) == 4) {
    load_rows_a(values, tile, m, k0);
  } else {
#pragma unroll
    for (int w = 0; w < 4; ++w)
      values.words[w] = load_word(tile, m + mma_lane() / 4 + w % 2 * 8, k0 + mma_lane() % 4 + w / 2 * 4);
  }
  return make_parts<Tile>(values);
}
/// 16 columns of the right operand.
template <class Tile> [[nodiscard]] __device__ auto load_column_parts(const Tile& tile, int n, int k0) {
  tensor_fragment values;
  if constexpr (Tile::k_major && sizeof(typename Tile::value_type) == 4) {
    load_rows_b(values, tile, n, k0);
  } else {
#pragma unroll
    for (int w = 0; w < 4; ++w)
      values.words[w] = load_word(tile, n + mma_lane() / 4 + w / 2 * 8, k0 + mma_lane() % 4 + w % 2 * 4);
  }
  return make_parts<Tile>(values);
}

/// high += ah bh, low += ah bl + al bh
template <class A, class B>
__device__ void multiply_parts(float (&high)[2][4], float (&low)[2][4], const A& a, const B& b) {
  tensor_atom_tf32::multiply(high, a.high, b.high);
  if constexpr (std::is_same_v<B, fragment_parts>)
    tensor_atom_tf32::multiply(low, a.high, b.low);
  if constexpr (std::is_same_v<A, fragment_parts>)
    tensor_atom_tf32::multiply(low, a.low, b.high);
}

} // namespace hmoe::backends::cuda_detail
