// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/buffer.hpp>
#include <hmoe/execution/last_cache.hpp>

#include <omp.h>
#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <string>
#include <utility>

#if defined(__AVX512BF16__) || defined(__AVX512VNNI__)
#include <immintrin.h>
#endif

/// What this machine could do at best, measured: arithmetic from registers, and reading from memory.
namespace benchmarks {

using seconds = std::chrono::duration<double>;
using clock = std::chrono::steady_clock;

/// The multiply-adds that a data type is computed with. A CPU without dot products of bf16 or int8, or with slower
/// ones, widens them to f32, so there the limit is that of f32.
enum class multiplier { f32, bf16, int8 };

/// 12 independent chains of multiply-adds, none of which touches memory; what differs is the instruction.
namespace detail {

constexpr std::size_t chains = 12;

struct f32_step {
  using vec = xsimd::batch<float>;
  static constexpr double flops = 2.0 * vec::size;
  static vec start(std::size_t c) { return vec(static_cast<float>(c) * 1e-3F); }
  static vec next(vec sum) { return xsimd::fma(sum, vec(0.999F), vec(1e-3F)); }
  static double value(vec sum) { return static_cast<double>(sum.get(0)); }
};

#ifdef __AVX512BF16__
struct bf16_step {
  using vec = __m512;
  static constexpr double flops = 64; // 16 pairs of products
  static vec start(std::size_t c) { return _mm512_set1_ps(static_cast<float>(c)); }
  static vec next(vec sum) {
    const __m512bh pairs = (__m512bh)_mm512_set1_epi32(0x3F803F80); // ones
    sum = _mm512_dpbf16_ps(sum, pairs, pairs);
    asm volatile("" : "+v"(sum)); // one instruction each: no computing in advance
    return sum;
  }
  static double value(vec sum) { return static_cast<double>(_mm512_cvtss_f32(sum)); }
};
#else
using bf16_step = f32_step;
#endif

#ifdef __AVX512VNNI__
struct int8_step {
  using vec = __m512i;
  static constexpr double flops = 128; // 16 times four products
  static vec start(std::size_t c) { return _mm512_set1_epi32(static_cast<int>(c)); }
  static vec next(vec sum) {
    const vec ones = _mm512_set1_epi8(1);
    sum = _mm512_dpbusd_epi32(sum, ones, ones);
    asm volatile("" : "+v"(sum));
    return sum;
  }
  static double value(vec sum) { return static_cast<double>(_mm_cvtsi128_si32(_mm512_castsi512_si128(sum))); }
};
#else
using int8_step = f32_step;
#endif

inline volatile double sink = 0; // what is computed must be used

template <class Step> void multiply_add(std::size_t rounds) {
  typename Step::vec sums[chains];
#pragma GCC unroll 12
  for (std::size_t c = 0; c < chains; ++c)
    sums[c] = Step::start(c);
  for (std::size_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
    for (std::size_t c = 0; c < chains; ++c)
      sums[c] = Step::next(sums[c]);
#pragma GCC unroll 12
  for (std::size_t c = 0; c < chains; ++c)
    sink = Step::value(sums[c]);
}

/// The shortest of `repeats` runs of work(thread) on all threads together.
template <class Work> double best_seconds(std::size_t threads, int repeats, Work work) {
  double best = 1e30;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    clock::time_point start;
#pragma omp parallel num_threads(static_cast<int>(threads))
    {
#pragma omp barrier // all are there
#pragma omp master
      start = clock::now();
#pragma omp barrier
      work(static_cast<std::size_t>(omp_get_thread_num()));
    }
    best = std::min(best, seconds(clock::now() - start).count());
  }
  return best;
}

template <class Step> double flops_per_second(std::size_t threads) {
  constexpr std::size_t rounds = 1 << 17;
  const double time = best_seconds(threads, 10, [](std::size_t) { multiply_add<Step>(rounds); });
  return Step::flops * static_cast<double>(rounds * chains * threads) / time;
}

} // namespace detail

/// FLOP/s from registers with the instruction set that this program is compiled for.
inline double measure_peak(multiplier kind, std::size_t threads) {
  switch (kind) {
  case multiplier::bf16:
    return std::max(detail::flops_per_second<detail::bf16_step>(threads),
                    detail::flops_per_second<detail::f32_step>(threads));
  case multiplier::int8:
    return detail::flops_per_second<detail::int8_step>(threads);
  case multiplier::f32:
    break;
  }
  return detail::flops_per_second<detail::f32_step>(threads);
}

/// Bytes of memory that a program may still take.
inline std::size_t available_memory() {
  std::ifstream info("/proc/meminfo");
  std::size_t kilobytes = 0;
  for (std::string name, unit; info >> name >> kilobytes && std::getline(info, unit);)
    if (name == "MemAvailable:")
      return kilobytes << 10;
  return SIZE_MAX;
}

namespace detail {

/// Reads `count` floats, a multiple of 64, from `Streams` places side by side.
template <std::size_t Streams> double sum_from(const float* from, std::size_t count) {
  using vec = xsimd::batch<float>;
  constexpr std::size_t line = 16;
  std::array<vec, line / vec::size> sums;
  sums.fill(vec(0.0F));
  const std::size_t apart = count / Streams;
  for (std::size_t i = 0; i < apart; i += line)
#pragma GCC unroll 4
    for (std::size_t s = 0; s < Streams; ++s)
#pragma GCC unroll 4
      for (std::size_t v = 0; v < sums.size(); ++v)
        sums[v] += vec::load_unaligned(from + s * apart + i + v * vec::size);
  double sum = 0;
  for (const vec& part : sums)
    sum += static_cast<double>(part.get(0));
  return sum;
}

} // namespace detail

/// Bytes per second that the threads together read from memory, far more of it than caches hold; each thread from one,
/// two or four places at a time, whichever is fastest.
inline double measure_dram(std::size_t threads) {
  // In a buffer, whose pages are as large as those of hmoe's weights.
  static const hmoe::buffer<float> memory = [] {
    hmoe::buffer<float> ones(std::max(8 * hmoe::last_cache_bytes(), std::size_t{256} << 20) / sizeof(float));
    ones.fill(1);
    return ones;
  }();
  const std::size_t count = memory.size() / threads / 4096 * 4096; // of a thread
  const auto seconds_with = [&](auto sum) {
    return detail::best_seconds(threads, 2,
                                [&](std::size_t thread) { detail::sink = sum(memory.data() + thread * count, count); });
  };
  const double time = std::min(
      {seconds_with(detail::sum_from<1>), seconds_with(detail::sum_from<2>), seconds_with(detail::sum_from<4>)});
  return static_cast<double>(threads * count * sizeof(float)) / time;
}

struct limits {
  double peak = 0; ///< FLOP/s
  double dram = 0; ///< bytes/s
};

/// Both limits as they are now: a machine that others share changes within minutes, so they are measured anew after
/// two seconds.
inline limits limits_now(multiplier kind, std::size_t threads) {
  struct entry {
    limits measured;
    clock::time_point at;
  };
  static std::map<std::pair<multiplier, std::size_t>, entry> known;
  auto& found = known[{kind, threads}];
  if (found.at == clock::time_point{} || clock::now() - found.at > std::chrono::seconds(2))
    found = {{measure_peak(kind, threads), measure_dram(threads)}, clock::now()};
  return found.measured;
}

} // namespace benchmarks
