// SPDX-License-Identifier: MIT
#include <hmoe/io/small_floats.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>

namespace io = hmoe::io;

namespace {
/// By the definition of a float with those bits of exponent and fraction: (−1)^s · 2^(e − bias) · 1.m, or 0.m · 2^(1 −
/// bias).
double by_definition(unsigned code, int exponent_bits, int fraction_bits, int bias) {
  const int fraction = static_cast<int>(code) & ((1 << fraction_bits) - 1);
  const int exponent = static_cast<int>(code >> fraction_bits) & ((1 << exponent_bits) - 1);
  const double sign = (code >> (exponent_bits + fraction_bits) & 1U) != 0 ? -1.0 : 1.0;
  return exponent == 0 ? sign * std::ldexp(fraction, 1 - bias - fraction_bits)
                       : sign * std::ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits);
}
bool same(float value, double expected) {
  return double{value} == expected && std::signbit(value) == std::signbit(expected);
}
} // namespace

TEST_CASE("every number of 8 and 4 bits by its definition") {
  for (unsigned code = 0; code < 256; ++code) {
    CAPTURE(code);
    const auto byte = static_cast<std::uint8_t>(code);
    const unsigned magnitude = code & 0x7fU;
    if (magnitude == 0x7f)
      CHECK(std::isnan(io::float_of_e4m3(byte)));
    else
      CHECK(same(io::float_of_e4m3(byte), by_definition(code, 4, 3, 7)));
    if (magnitude > 0x7c)
      CHECK(std::isnan(io::float_of_e5m2(byte)));
    else if (magnitude == 0x7c)
      CHECK(same(io::float_of_e5m2(byte), code == 0x7c ? INFINITY : -INFINITY));
    else
      CHECK(same(io::float_of_e5m2(byte), by_definition(code, 5, 2, 15)));
    if (code == 0xff)
      CHECK(std::isnan(io::float_of_e8m0(byte)));
    else
      CHECK(same(io::float_of_e8m0(byte), std::ldexp(1.0, static_cast<int>(code) - 127)));
    CHECK(same(io::float_of_e2m1(code), by_definition(code & 15U, 2, 1, 1)));
  }
}

TEST_CASE("known values") { // ml_dtypes 0.6 has the same
  CHECK(io::float_of_e4m3(0x7e) == 448.0F);
  CHECK(io::float_of_e4m3(0x01) == 0.001953125F);
  CHECK(io::float_of_e4m3(0xb8) == -1.0F);
  CHECK(io::float_of_e5m2(0x7b) == 57344.0F);
  CHECK(io::float_of_e5m2(0x01) == 1.52587890625e-05F);
  CHECK(io::float_of_e8m0(0x00) == 5.877471754111438e-39F);
  CHECK(io::float_of_e2m1(0x7) == 6.0F);
}
