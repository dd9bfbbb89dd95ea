// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/rounding.hpp>

#include <xsimd/xsimd.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace hmoe::backends::simd_detail {

/// Σ_i c[i]·x^i
template <class V, std::size_t N>
[[nodiscard, gnu::always_inline]] inline V polynomial(const V& x,
                                                      const typename V::value_type (&coefficients)[N]) noexcept {
  V sum(coefficients[N - 1]);
#pragma GCC unroll 32
  for (std::size_t i = 1; i < N; ++i)
    sum = xsimd::fma(sum, x, V(coefficients[N - 1 - i]));
  return sum;
}

/// a / b, rounded once. xsimd 8 multiplies floats by an estimate of 1/b on NEON; AArch64 has the instruction.
template <class V> [[nodiscard, gnu::always_inline]] inline V quotient(const V& a, const V& b) noexcept {
#if defined(__aarch64__)
  if constexpr (std::is_same_v<typename V::value_type, float> && std::is_base_of_v<xsimd::neon, typename V::arch_type>)
    return vdivq_f32(a, b);
#endif
  return a / b;
}

/// e^r = 1 + r + r²·Q(r) for |r| ≤ ½ ln 2, Q minimax in the relative error of e^r, and what the reduction to r needs.
template <class T> struct exponential_constants;
template <> struct exponential_constants<float> {
  using bits = std::uint32_t;
  static constexpr int fraction_bits = 23;
  static constexpr float lowest = -105, highest = 89;    // rounds to 0, to infinity
  static constexpr float nearest_integer = 0x1.8p23F;    // in a sum with it, the lowest bits are an integer
  static constexpr float half_range = 0x1p64F;           // 2^n is made as 2^(n + 64) · 2^−64, or the other way round
  static constexpr float ln2_high = 0.693359375F;        // times an exponent: exact
  static constexpr float ln2_low = -2.1219444005469e-4F; // ln 2 − ln2_high
  static constexpr float log2_e = 1.44269504088896341F;
  static constexpr float q[] = {0.49999993052462589F, 0.16666514792142266F, 0.041668456224144736F,
                                0.0083694188333215958F, 0.0013813179467346347F}; // 3.3e-9
};
template <> struct exponential_constants<double> {
  using bits = std::uint64_t;
  static constexpr int fraction_bits = 52;
  static constexpr double lowest = -746, highest = 710;
  static constexpr double nearest_integer = 0x1.8p52;
  static constexpr double half_range = 0x1p512;
  static constexpr double ln2_high = 6.93147180369123816490e-01;
  static constexpr double ln2_low = 1.90821492927058770002e-10;
  static constexpr double log2_e = 1.44269504088896341;
  static constexpr double q[] = {0.50000000000000117013,   0.16666666666666386307,  0.041666666666519152789,
                                 0.0083333333335076595913, 0.001388888894691998508, 0.00019841269486162523318,
                                 0.000024801489352296403,  2.7557597187461963e-06,  2.7631687324708731697e-07,
                                 2.4998991969945725467e-08}; // 4.1e-18
};

/// What is known about the argument: with `never_positive` there is nothing to do about overflow.
enum class argument { any, never_positive };

/// e^(x + rest) for |rest| of at most a few hundredths, where x + rest is more exact than a single number could be.
/// e^−∞ = 0, e^∞ = ∞, NaN stays; results that are subnormal are rounded once, as all others. Every product that is
/// added to something is an explicit fma, so a compiler has no choice that could depend on the code around it.
template <argument Sign, class V>
[[nodiscard, gnu::always_inline]] inline V exponential_of_sum(const V& x, const V& rest) noexcept {
  using constants = exponential_constants<typename V::value_type>;
  using bits = xsimd::batch<typename constants::bits, typename V::arch_type>;
  V bounded = xsimd::select(x < V(constants::lowest), V(constants::lowest), x); // NaN passes
  V wide(constants::half_range), narrow(1 / constants::half_range);
  if constexpr (Sign == argument::any) {
    bounded = xsimd::select(x > V(constants::highest), V(constants::highest), bounded);
    const auto positive = x > V(0);
    wide = xsimd::select(positive, V(1 / constants::half_range), V(constants::half_range));
    narrow = xsimd::select(positive, V(constants::half_range), V(1 / constants::half_range));
  }
  const V shifted = as_rounded(xsimd::fma(bounded, V(constants::log2_e), V(constants::nearest_integer)));
  const V n = shifted - V(constants::nearest_integer);
  const V high = as_rounded(xsimd::fma(n, V(-constants::ln2_high), bounded)); // exact
  const V r = xsimd::fma(n, V(-constants::ln2_low), high) + rest;
  const V power = xsimd::fma(r * r, polynomial(r, constants::q), r) + V(1);
  const bits exponent = xsimd::bitwise_cast<bits>(shifted) << constants::fraction_bits;
  return as_rounded(power * xsimd::bitwise_cast<V>(xsimd::bitwise_cast<bits>(wide) + exponent)) * narrow;
}

/// e^x
template <argument Sign = argument::any, class V>
[[nodiscard, gnu::always_inline]] inline V exponential(const V& x) noexcept {
  return exponential_of_sum<Sign>(x, V(0));
}

/// σ(z) = 1/(1 + e^−z) and 1 − σ(z) = σ(−z), both with all their digits.
template <class V> struct logistic_pair {
  V sigma, complement;
};
template <class V> [[nodiscard, gnu::always_inline]] inline logistic_pair<V> logistic(const V& z) noexcept {
  const V e = exponential<argument::never_positive>(-xsimd::abs(z)), sum = V(1) + e;
  const auto negative = z < V(0);
  return {quotient(xsimd::select(negative, e, V(1)), sum), quotient(xsimd::select(negative, V(1), e), sum)};
}

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
