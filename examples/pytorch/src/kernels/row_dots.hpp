// SPDX-License-Identifier: MIT
// Products with weights as they lie in tensors, row by row: each value is a dot product of two rows, so nothing is
// packed.
#pragma once

#include <hmoe/backends/simd/weight_formats.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/scalar.hpp>

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace hmoe::python {

/// How rows of activations and weights of a type are multiplied. `step` values of k at a time are added to the lanes of
/// an accumulator, and the lanes are summed at the end: always the same sum, whatever is computed beside it.
struct float_rows {
  using weight = float;
  using row_value = float;
  using vec = xsimd::batch<float>;
  struct operand {
    vec value;
  };
  static constexpr std::size_t step = vec::size;
  static constexpr bool encodes = false; ///< whether rows of x are others than the tensor's

  [[nodiscard]] static constexpr std::size_t row_length(std::size_t depth) noexcept { return depth; }
  static void encode(const float* from, std::size_t depth, float* to) noexcept { std::copy_n(from, depth, to); }
  [[nodiscard, gnu::always_inline]] static operand load(const float* from) noexcept {
    vec value = vec::load_unaligned(from);
    backends::formats::detail::keep_in_register(value); // g++ 12 reads it again for each product
    return {value};
  }
  [[gnu::always_inline]] static void add(vec& sum, const operand& w, const operand& x) noexcept {
    sum = xsimd::fma(w.value, x.value, sum);
  }
};

#if defined(__AVX512BF16__)
/// Pairs of bfloat16, whose two products vdpbf16ps adds.
struct bfloat16_pairs {
  using weight = bfloat16;
  using row_value = bfloat16;
  using vec = xsimd::batch<float>;
  struct operand {
    __m512i value;
  };
  static constexpr std::size_t step = 32;
  static constexpr bool encodes = false;

  [[nodiscard]] static constexpr std::size_t row_length(std::size_t depth) noexcept { return depth; }
  static void encode(const float* from, std::size_t depth, bfloat16* to) noexcept {
    backends::formats::detail::round_values(from, depth, to);
  }
  [[nodiscard, gnu::always_inline]] static operand load(const bfloat16* from) noexcept {
    return {_mm512_loadu_si512(from)};
  }
  [[gnu::always_inline]] static void add(vec& sum, const operand& w, const operand& x) noexcept {
    sum = _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(w.value), reinterpret_cast<__m512bh>(x.value));
  }
};
#endif
/// Weights of bfloat16 are widened in registers, values of even k and of odd k; rows are floats in that order.
struct widened_bfloat16 {
  using weight = bfloat16;
  using row_value = float;
  using vec = xsimd::batch<float>;
  using bits = xsimd::batch<std::uint32_t>;
  struct operand {
    vec even, odd;
  };
  static constexpr std::size_t step = 2 * vec::size;
  static constexpr bool encodes = true;

  [[nodiscard]] static constexpr std::size_t row_length(std::size_t depth) noexcept {
    return (depth + step - 1) / step * step;
  }
  static void encode(const float* from, std::size_t depth, float* to) noexcept {
    for (std::size_t k = 0; k < row_length(depth); ++k)
      to[k / step * step + k % 2 * vec::size + k % step / 2] = k < depth ? from[k] : 0.0F;
  }
  [[nodiscard, gnu::always_inline]] static operand load(const bfloat16* from) noexcept {
    const bits pair = bits::load_unaligned(reinterpret_cast<const std::uint32_t*>(from));
    return {xsimd::bitwise_cast<vec>(pair << 16), xsimd::bitwise_cast<vec>(pair & bits(0xffff0000U))};
  }
  [[nodiscard, gnu::always_inline]] static operand load(const float* from) noexcept {
    vec even = vec::load_unaligned(from), odd = vec::load_unaligned(from + vec::size);
    backends::formats::detail::keep_in_register(even);
    backends::formats::detail::keep_in_register(odd);
    return {even, odd};
  }
  [[gnu::always_inline]] static void add(vec& sum, const operand& w, const operand& x) noexcept {
    sum = xsimd::fma(w.odd, x.odd, xsimd::fma(w.even, x.even, sum));
  }
};

template <class Form> class row_dots {
  using vec = typename Form::vec;
  using weight = typename Form::weight;
  using row_value = typename Form::row_value;

public:
  /// Sums in registers: rows × columns, with an operand for each column and one for a row.
  static constexpr std::size_t rows_together = vec::size == 16 ? 4 : 2, columns_together = vec::size == 16 ? 6 : 4;
  static constexpr std::size_t most_rows = 128; ///< of a call

  /// sums(r, c) = ⟨row r, weights c⟩, r < count ≤ most_rows.
  static void multiply(const row_value* const* rows, std::size_t count, const weight* weights, std::size_t stride,
                       std::size_t columns, std::size_t depth, matrix_view<float> sums) noexcept {
    for (std::size_t c = 0; c < columns; c += columns_together)
      column_block(std::min(columns_together, columns - c), rows, count, weights + c * stride, stride, depth,
                   sums.column_block(c, std::min(columns_together, columns - c)));
  }

private:
  static constexpr std::size_t part = 4096 / sizeof(weight); ///< of k that columns keep in L1 for all rows

  static void column_block(std::size_t columns, const row_value* const* rows, std::size_t count, const weight* weights,
                           std::size_t stride, std::size_t depth, matrix_view<float> sums) noexcept {
    with_size<columns_together>(columns, [&]<std::size_t C>() {
      if (count <= rows_together) // weights are read once: no reason to stop within a row
        return with_size<rows_together>(
            count, [&]<std::size_t R>() { tile<R, C>(rows, 0, weights, stride, depth, nullptr, nullptr, sums); });
      alignas(64) float kept[most_rows * C * vec::size];
      constexpr std::size_t own_stride = part + 64 / sizeof(weight);
      alignas(64) weight own_weights[C * own_stride];
      for (std::size_t k = 0; k < depth || k == 0; k += part) {
        const std::size_t some = std::min(part, depth - k);
        // In the tensor the rows may lie a multiple of 4 KB apart, all in the same few places of L1.
        for (std::size_t c = 0; c < C; ++c)
          std::copy_n(weights + c * stride + k, some, own_weights + c * own_stride);
        for (std::size_t r = 0; r < count; r += rows_together)
          with_size<rows_together>(std::min(rows_together, count - r), [&]<std::size_t R>() {
            float* own = kept + r * C * vec::size;
            tile<R, C>(rows + r, k, own_weights, own_stride, some, k == 0 ? nullptr : own,
                       k + part < depth ? own : nullptr, sums.row_block(r, R));
          });
      }
    });
  }

  /// f.template operator()<N>() for N = size, 1 to Most.
  template <std::size_t Most, class F> [[gnu::always_inline]] static void with_size(std::size_t size, const F& f) {
    if constexpr (Most > 1)
      if (size < Most)
        return with_size<Most - 1>(size, f);
    f.template operator()<Most>();
  }
  /// Of the lanes, always in the same order.
  [[nodiscard, gnu::always_inline]] static float sum_of(const vec& lanes) noexcept {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(lanes);
#elif defined(__AVX__)
    const __m128 half = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
#else
    alignas(64) float values[vec::size];
    lanes.store_aligned(values);
    for (std::size_t half = vec::size / 2; half != 0; half /= 2)
      for (std::size_t i = 0; i < half; ++i)
        values[i] += values[i + half];
    return values[0];
#endif
  }
  /// Of Count registers that `lanes` finds, to[i] being the sum of lanes(i). Four at a time take 13 instructions with
  /// AVX-512, one by one 32.
  template <std::size_t Count, class Lanes>
  [[gnu::always_inline]] static void sums_of(const Lanes& lanes, float* to) noexcept {
    std::size_t i = 0;
#if defined(__AVX512F__)
    const auto halves = [](__m512 a, __m512 b) { // a[l] + a[l + 8], and b behind them
      return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    };
    const __m512i first_of_quarter = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
#pragma GCC unroll 8
    for (; i + 4 <= Count; i += 4) {
      const __m512 ab = halves(lanes(i), lanes(i + 1)), cd = halves(lanes(i + 2), lanes(i + 3));
      const __m512 four = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
      const __m512 two = _mm512_add_ps(four, _mm512_permute_ps(four, 0x4e));
      const __m512 one = _mm512_add_ps(two, _mm512_permute_ps(two, 0xb1));
      _mm_storeu_ps(to + i, _mm512_castps512_ps128(_mm512_permutexvar_ps(first_of_quarter, one)));
    }
#endif
#pragma GCC unroll 8
    for (; i < Count; ++i)
      to[i] = sum_of(lanes(i));
  }

  /// Products of rows, from value `first` on, and weights, added to the lanes `from` (zeros where there are none): to
  /// the lanes `to`, or summed to sums(r, c) where that is null.
  template <std::size_t R, std::size_t C>
  [[gnu::noinline]] static void tile(const row_value* const* rows, std::size_t first, const weight* w,
                                     std::size_t stride, std::size_t depth, const float* from, float* to,
                                     matrix_view<float> sums) noexcept {
    vec lanes[R][C];
    const row_value* x[R];
#pragma GCC unroll 8
    for (std::size_t r = 0; r < R; ++r) {
      x[r] = rows[r] + first;
#pragma GCC unroll 8
      for (std::size_t c = 0; c < C; ++c)
        lanes[r][c] = from == nullptr ? vec(0.0F) : vec::load_aligned(from + (r * C + c) * vec::size);
    }
    constexpr std::size_t ahead = 4096 / sizeof(weight);
    std::size_t k = 0;
    for (; k + Form::step <= depth; k += Form::step) {
      typename Form::operand row[R];
#pragma GCC unroll 8
      for (std::size_t r = 0; r < R; ++r)
        row[r] = Form::load(x[r] + k);
#pragma GCC unroll 8
      for (std::size_t c = 0; c < C; ++c) {
        const weight* column = w + c * stride + k;
        if constexpr (R == 1)
          __builtin_prefetch(column + ahead);
        const typename Form::operand value = Form::load(column);
#pragma GCC unroll 8
        for (std::size_t r = 0; r < R; ++r)
          Form::add(lanes[r][c], value, row[r]);
      }
    }
    if (k < depth) { // what lies behind the end is not read
      typename Form::operand row[R];
#pragma GCC unroll 8
      for (std::size_t r = 0; r < R; ++r)
        row[r] = Form::encodes ? Form::load(x[r] + k) : load_some(x[r] + k, depth - k);
#pragma GCC unroll 8
      for (std::size_t c = 0; c < C; ++c) {
        const typename Form::operand value = load_some(w + c * stride + k, depth - k);
#pragma GCC unroll 8
        for (std::size_t r = 0; r < R; ++r)
          Form::add(lanes[r][c], value, row[r]);
      }
    }
    if (to != nullptr) {
#pragma GCC unroll 8
      for (std::size_t r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (std::size_t c = 0; c < C; ++c)
          lanes[r][c].store_aligned(to + (r * C + c) * vec::size);
      return;
    }
    alignas(64) float values[R * C];
    sums_of<R * C>([&](std::size_t i) { return lanes[i / C][i % C]; }, values);
    for (std::size_t r = 0; r < R; ++r)
      std::copy_n(values + r * C, C, sums.row(r).data());
  }
  template <class Value>
  [[nodiscard]] static typename Form::operand load_some(const Value* from, std::size_t count) noexcept {
    alignas(64) Value values[Form::step]{};
    std::copy_n(from, count, values);
    return Form::load(values);
  }
};

} // namespace hmoe::python
