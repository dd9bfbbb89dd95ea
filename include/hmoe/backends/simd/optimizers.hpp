// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/elementwise.hpp>
#include <hmoe/training/adamw.hpp>

#include <xsimd/xsimd.hpp>

#include <cstddef>

namespace hmoe::backends::simd_detail {

/// The operation update_adamw. Compilers leave these loops scalar, since std::sqrt may set errno; the
/// square root and the quotient of one value at a time then take longer than memory does.
template <class Arch> struct optimizers {
  template <class T>
  static void update_adamw(const training::adamw_factors<T>& by, std::size_t count, T* value, const T* gradient, T* m,
                           T* v) noexcept {
    using vec = xsimd::batch<T, Arch>;
    const vec beta1(by.beta1), beta2(by.beta2), rest1(T(1) - by.beta1), rest2(T(1) - by.beta2);
    const vec keep(by.keep), rate(by.rate), root_scale(by.root_scale), epsilon(by.epsilon);
    for_each_vector<vec>(count, [&](const auto& lanes) {
      const vec g = lanes.load(gradient);
      const vec mean = xsimd::fma(beta1, lanes.load(m), rest1 * g);
      const vec square = xsimd::fma(beta2, lanes.load(v), rest2 * g * g);
      const vec step = rate * mean / xsimd::fma(xsimd::sqrt(square), root_scale, epsilon);
      lanes.store(mean, m);
      lanes.store(square, v);
      lanes.store(xsimd::fms(keep, lanes.load(value), step), value);
    });
  }
};

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
