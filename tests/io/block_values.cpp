// SPDX-License-Identifier: MIT
// By hand; tests/golden/files.cpp compares with ggml's own library.
#include <hmoe/io/block_values.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace io = hmoe::io;
using hmoe::half;

TEST_CASE("blocks of 32") {
  float w[32];
  io::q8_0_block q8{half(0.5F), {}};
  q8.q[0] = -128;
  q8.q[31] = 127;
  q8.dequantize(w);
  CHECK(w[0] == -64);
  CHECK(w[31] == 63.5F);

  io::q4_0_block q4{half(2.0F), {}};
  q4.q[1] = 0xf3; // weight 1 has the lower half, weight 17 the upper one
  q4.dequantize(w);
  CHECK(w[0] == -16);
  CHECK(w[1] == -10);
  CHECK(w[17] == 14);

  io::q4_1_block offset{half(2.0F), half(-1.0F), {}};
  offset.q[15] = 0xf3;
  offset.dequantize(w);
  CHECK(w[0] == -1);
  CHECK(w[15] == 5);
  CHECK(w[31] == 29);

  io::ggml_mxfp4_block mx{128, {}};
  mx.q[2] = 0xf3; // -6 and 1.5, times 2
  mx.q[3] = 0x08;
  mx.dequantize(w);
  CHECK(w[2] == 3);
  CHECK(w[18] == -12);
  CHECK_FALSE(std::signbit(w[3])); // ggml has no negative zero
  mx.e = 0;
  mx.dequantize(w);
  CHECK(w[2] == 1.5F * 0x1p-127F);
}

TEST_CASE("blocks of 256 with parts of their own scale") {
  float w[256];
  io::q4_k_block k4{half(1.0F), half(0.5F), {}, {}};
  k4.scales[0] = 0x80 | 3; // part 0: scale 3; the upper bits are those of part 4
  k4.scales[4] = 0x40 | 2; // minimum 2; upper bits of minimum 4
  k4.scales[8] = 0x65;     // part 4: scale 5 + 2·16 = 37, minimum 6 + 16 = 22
  k4.q[0] = 0xa7;          // weight 0 of part 0: 7, of part 1: 10
  k4.q[64] = 0x09;         // of part 4: 9
  k4.dequantize(w);
  CHECK(w[0] == 3 * 7 - 0.5F * 2);
  CHECK(w[32] == 0); // part 1 has scale 0
  CHECK(w[128] == 37 * 9 - 0.5F * 22);
  CHECK(k4.part_scale(4) == 37);
  CHECK(k4.part_minimum(4) == 22);

  io::q6_k_block k6{{}, {}, {}, half(2.0F)};
  k6.scales[0] = 1;
  k6.scales[15] = -3;
  k6.low[0] = 0x05;
  k6.high[0] = 0x02;  // weight 0: 5 + 2·16 − 32 = 5
  k6.low[127] = 0x60; // weight 255: lower bits 6
  k6.high[63] = 0xc0; // upper bits 3: 54 − 32 = 22
  k6.dequantize(w);
  CHECK(w[0] == 2 * 5);
  CHECK(w[1] == 2 * -32);
  CHECK(w[16] == 0);
  CHECK(w[255] == 2 * -3 * 22);
}
