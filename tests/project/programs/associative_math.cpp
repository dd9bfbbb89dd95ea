// SPDX-License-Identifier: MIT
// Flags that let the compiler reorder arithmetic: exponentials, activations and a layer keep their values.
// flags: -O2 -march=native -fassociative-math -fno-signed-zeros -fno-trapping-math
// flags: -O1 -ffast-math -fno-finite-math-only
#include <hmoe/backends/simd.hpp>
#include <hmoe/hmoe.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

using namespace hmoe;

namespace {

int wrong = 0;
void expect(const char* what, double at, double got, double right, double tolerance) {
  if (std::abs(got - right) <= tolerance)
    return;
  std::printf("%s(%g) is %.9g, expected %.9g\n", what, at, got, right);
  ++wrong;
}

template <class T> void check_exponentials(double tolerance, double lowest, double highest) {
  using V = xsimd::batch<T>;
  for (double x = lowest; x < highest; x += (highest - lowest) / 1999) {
    T values[V::size];
    backends::simd_detail::exponential(V(static_cast<T>(x))).store_unaligned(values);
    const double right = std::exp(static_cast<double>(static_cast<T>(x)));
    expect("exp", x, static_cast<double>(values[0]), right, tolerance * right);
  }
}

double normal_below(double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); }

void check_activations() {
  std::vector<float> z(64), a(64), b(64);
  for (std::size_t i = 0; i < z.size(); ++i)
    z[i] = 0.37F * static_cast<float>(i) - 9;
  backends::simd<>::activate<experts::silu>(vector_view<const float>(z), vector_view<float>(a));
  backends::simd<>::activate<experts::gelu>(vector_view<const float>(z), vector_view<float>(b));
  for (std::size_t i = 0; i < z.size(); ++i) {
    const double x = static_cast<double>(z[i]), silu = x / (1 + std::exp(-x)), gelu = x * normal_below(x);
    expect("silu", x, static_cast<double>(a[i]), silu, 1e-6 * std::abs(silu));
    expect("gelu", x, static_cast<double>(b[i]), gelu, 1e-5 * std::abs(gelu) + 1e-37);
  }
}

} // namespace

int main() {
  check_exponentials<float>(3e-7, -85, 88.7); // the last ones need 2^128 times a number below 1
  check_exponentials<double>(1e-15, -700, 709.7);
  check_activations();

  float z[16], p[16];
  for (int i = 0; i < 16; ++i)
    z[i] = 0.37F * static_cast<float>(i) - 2;
  backends::simd<>::score(routing::softmax{}, vector_view<const float>(z, 16), vector_view<float>(p, 16));
  expect("softmax", 15, static_cast<double>(p[15]), 0.310098345, 1e-7); // (1 − e^−0.37) / (1 − e^−5.92)

  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>(64, {5, 16, 24, 32, 33, 40, 48, 60})},
                  routing::top_k_router<float>(64, 8, 2)};
  layer.initialize(seed{3});
  matrix<float> x(40, 64), y(40, 64), expected(40, 64);
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{1}, 0);
  layer.forward(context{backends::reference{}}, x, expected);
  layer.forward(context{backends::simd{}}, x, y);
  double largest = 0;
  for (std::size_t i = 0; i < y.size(); ++i)
    largest = std::max(largest, static_cast<double>(std::abs(expected.data()[i])));
  for (std::size_t i = 0; i < y.size(); ++i)
    expect("y", static_cast<double>(i), static_cast<double>(y.data()[i]), static_cast<double>(expected.data()[i]),
           1e-5 * largest);
  return wrong == 0 ? 0 : 1;
}
