// SPDX-License-Identifier: MIT
// expect: hmoe::backends::simd::pack: Bank is derived from a glu_bank or an mlp_bank and declares forward or backward anew
#include <hmoe/backends/simd.hpp>
#include <hmoe/experts/glu.hpp>

using namespace hmoe;

struct mine : experts::glu_bank<float, experts::silu> {
  using experts::glu_bank<float, experts::silu>::glu_bank;
#ifndef HMOE_MUST_COMPILE
  template <class Math>
  void forward(const Math&, std::size_t, matrix_view<const float>, matrix_view<float>, matrix_view<float>) const {}
#endif
};

void run(const mine& bank) { static_cast<void>(backends::simd<>::pack(bank)); }
