// SPDX-License-Identifier: MIT
// Stored values on the device have the bits that the host's conversions give; approximations keep the error that they
// name.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/epilogue.cuh>

#include "device_array.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <vector>

using namespace hmoe;
namespace kernels = hmoe::backends::cuda_detail;

// Kernels stand outside of unnamed namespaces, whose mangled names differ between compilations.
/// Thread i stores values i and i + 1 at to + 4 i + first, of which `count` are there, and reads them back.
template <class S>
__global__ void store_pairs(const float* values, int pairs, int first, int count, S* to, float* read) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= pairs)
    return;
  kernels::store_pair(to + 4 * i + first, values[i], values[i + 1], count);
  for (int v = 0; v < 4; ++v)
    read[4 * i + v] = kernels::to_float(to[4 * i + v]);
}

/// quick_silu and its gate of z and an up value of 3, with da = 2: value, derivative, a, dg, du.
__global__ void approximate(const float* z, int count, float* results) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    float* to = results + 5 * i;
    to[0] = kernels::quick_silu::value(z[i]);
    to[1] = kernels::quick_silu::derivative(z[i]);
    to[2] = kernels::quick_silu_gate::value(z[i], 3.0F);
    kernels::quick_silu_gate::backward(z[i], 3.0F, 2.0F, to[3], to[4]);
  }
}

namespace {

/// Values around which rounding turns: halves of the last bit of S at even and odd neighbours, and the edges of range.
template <class S> std::vector<float> values() {
  std::vector<float> list;
  for (const std::uint16_t bits : {0x0000, 0x0001, 0x0002, 0x03ff, 0x0400, 0x3555, 0x3c00, 0x3c01, 0x3f80, 0x3f81,
                                   0x4b7e, 0x7bff, 0x7c00, 0x7f7f, 0x7f80}) {
    S low, high;
    low.bits = bits;
    high.bits = static_cast<std::uint16_t>(bits + 1);
    const float a = low, b = high, middle = std::isfinite(b) ? a + (b - a) / 2 : a;
    for (const float v : {a, middle, std::nextafter(middle, a), std::nextafter(middle, b)})
      for (const float sign : {1.0F, -1.0F})
        list.push_back(sign * v);
  }
  return list;
}

std::uint32_t bits_of(float value) {
  return std::isnan(value) ? 0x7fc00000U : __builtin_bit_cast(std::uint32_t, value);
}
std::uint32_t bits_of(bfloat16 value) { return bits_of(static_cast<float>(value)); }
std::uint32_t bits_of(hmoe::half value) { return bits_of(static_cast<float>(value)); }

template <class S> void check(const std::vector<float>& list) {
  const int pairs = static_cast<int>(list.size()) - 1;
  const S untouched{77.0F};
  const cuda_checks::device_array<float> device_values(list);
  for (const int first : {0, 1}) // aligned for one store, and not
    for (const int count : {-1, 0, 1, 2, 9}) {
      const cuda_checks::device_array<S> to(std::vector<S>(4 * list.size(), untouched));
      const cuda_checks::device_array<float> read(std::vector<float>(4 * list.size()));
      store_pairs<<<1, 256>>>(device_values.data(), pairs, first, count, to.data(), read.data());
      kernels::require_cuda(cudaGetLastError(), "store_pairs");
      const auto stored = to.download();
      const auto floats = read.download();
      for (int i = 0; i < pairs; ++i)
        for (int v = 0; v < 4; ++v) {
          const bool there = v >= first && v < first + (count < 2 ? count : 2);
          const S expected = there ? static_cast<S>(list[i + v - first]) : untouched;
          INFO("value ", list[i + (there ? v - first : 0)], ", first ", first, ", count ", count);
          CHECK(bits_of(stored[4 * i + v]) == bits_of(expected));
          CHECK(bits_of(floats[4 * i + v]) == bits_of(expected));
        }
    }
}

} // namespace

TEST_CASE("bfloat16") { check<bfloat16>(values<bfloat16>()); }
TEST_CASE("half") { check<hmoe::half>(values<hmoe::half>()); }
TEST_CASE("float") { check<float>(values<hmoe::half>()); }

TEST_CASE("silu by approximations") {
  std::vector<float> z;
  for (int i = -870; i <= 870; ++i)
    z.push_back(static_cast<float>(i) / 10);
  const cuda_checks::device_array<float> device_z(z), results(5 * z.size());
  approximate<<<1, 64>>>(device_z.data(), static_cast<int>(z.size()), results.data());
  kernels::require_cuda(cudaGetLastError(), "approximate");
  const auto got = results.download();
  for (std::size_t i = 0; i < z.size(); ++i) {
    CAPTURE(z[i]);
    const double at = z[i], value = experts::silu::value(at), derivative = experts::silu::derivative(at);
    const float* of = got.data() + 5 * i;
    CHECK(std::abs(of[0] - value) <= 0x1p-17 * std::abs(value));
    CHECK(std::abs(of[1] - derivative) <= 0x1p-17);
    CHECK(std::abs(of[2] - 3 * value) <= 0x1.01p-17 * std::abs(3 * value));
    CHECK(std::abs(of[3] - 6 * derivative) <= 6 * 0x1.01p-17);
    CHECK(std::abs(of[4] - 2 * value) <= 0x1.01p-17 * std::abs(2 * value));
  }
}
