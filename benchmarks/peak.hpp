// SPDX-License-Identifier: MIT
#pragma once

#include <xsimd/xsimd.hpp>

#include <chrono>
#include <cstddef>

namespace benchmarks {

/// Multiply-adds per second that one thread reaches from registers, in FLOP/s: what a product could at most do with
/// the instruction set this program is compiled for.
inline double measured_peak() {
  using vec = xsimd::batch<float>;
  constexpr std::size_t chains = 12, rounds = 1 << 16;
  vec sums[chains];
  for (std::size_t c = 0; c < chains; ++c)
    sums[c] = vec(static_cast<float>(c) * 1e-3F);
  const vec factor(0.999F), term(1e-3F);
  double best = 0;
  for (int repeat = 0; repeat < 20; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
      for (std::size_t c = 0; c < chains; ++c)
        sums[c] = xsimd::fma(sums[c], factor, term);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    const double flops = 2.0 * static_cast<double>(rounds * chains * vec::size) / seconds.count();
    best = flops > best ? flops : best;
  }
  float sink = 0; // keeps the chains alive
  for (const vec& sum : sums)
    sink += sum.get(0);
  return sink == 12345.0F ? 0 : best;
}

} // namespace benchmarks
