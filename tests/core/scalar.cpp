// SPDX-License-Identifier: MIT
#include <hmoe/core/scalar.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace {

using hmoe::bfloat16;
using hmoe::half;

// What IEEE 754 says of a 16-bit format, written with ldexp and a search instead of bit tricks.
template <int FractionBits, int ExponentBits> struct format {
  static constexpr int bias = (1 << (ExponentBits - 1)) - 1;
  static constexpr unsigned fraction_mask = (1U << FractionBits) - 1U;
  static constexpr unsigned infinity = ((1U << ExponentBits) - 1U) << FractionBits;

  // Non-negative patterns; infinity counts as the value that would come next, as the rounding rule wants it.
  static double magnitude(unsigned pattern) {
    const int exponent = static_cast<int>(pattern >> FractionBits);
    const auto fraction = static_cast<double>(pattern & fraction_mask);
    if (exponent == 0)
      return std::ldexp(fraction, 1 - bias - FractionBits);
    return std::ldexp(fraction + static_cast<double>(1 << FractionBits), exponent - bias - FractionBits);
  }
  static const std::vector<double>& magnitudes() {
    static const std::vector<double> table = [] {
      std::vector<double> values;
      for (unsigned pattern = 0; pattern <= infinity; ++pattern)
        values.push_back(magnitude(pattern));
      return values;
    }();
    return table;
  }
  // The pattern nearest to a value that is not NaN, ties to the even pattern.
  static std::uint16_t nearest(double value) {
    const unsigned sign = std::signbit(value) ? 0x8000U : 0U;
    const auto& table = magnitudes();
    const double size = std::abs(value);
    const auto above = std::lower_bound(table.begin(), table.end(), size);
    unsigned result = infinity;
    if (above != table.end()) {
      result = static_cast<unsigned>(above - table.begin());
      if (result > 0) {
        const double up = table[result] - size, down = size - table[result - 1];
        if (down < up || (down == up && result % 2 == 1))
          --result;
      }
    }
    return static_cast<std::uint16_t>(sign | result);
  }
};

template <class Scalar> struct format_of;
template <> struct format_of<bfloat16> : format<7, 8> {};
template <> struct format_of<half> : format<10, 5> {};

template <class Scalar> Scalar from_bits(unsigned pattern) {
  Scalar value;
  value.bits = static_cast<std::uint16_t>(pattern);
  return value;
}

} // namespace

TEST_CASE_TEMPLATE("every 16-bit pattern means what IEEE 754 says and survives the way through float", Scalar, bfloat16,
                   half) {
  using format = format_of<Scalar>;
  unsigned wrong_value = 0, changed = 0;
  for (unsigned pattern = 0; pattern < 0x10000U; ++pattern) {
    const auto value = static_cast<float>(from_bits<Scalar>(pattern));
    const unsigned size = pattern & 0x7fffU;
    const double sign = pattern >= 0x8000U ? -1 : 1;
    if (std::signbit(value) != (sign < 0))
      ++wrong_value;
    if (size > format::infinity) { // NaN: stays NaN and keeps its sign; the payload is free
      const unsigned again = Scalar(value).bits;
      wrong_value += std::isnan(value) ? 0U : 1U;
      changed += (again & 0x7fffU) > format::infinity && (again & 0x8000U) == (pattern & 0x8000U) ? 0U : 1U;
      continue;
    }
    const double expected =
        size == format::infinity ? std::numeric_limits<double>::infinity() : format::magnitude(size);
    wrong_value += static_cast<double>(value) == sign * expected ? 0U : 1U;
    changed += Scalar(value).bits == pattern ? 0U : 1U;
  }
  CHECK(wrong_value == 0);
  CHECK(changed == 0);
}

TEST_CASE_TEMPLATE("narrowing rounds to the nearest value, ties to even", Scalar, bfloat16, half) {
  using format = format_of<Scalar>;
  unsigned wrong = 0;
  const auto compare = [&](float value) {
    for (const float signed_value : {value, -value})
      wrong += Scalar(signed_value).bits == format::nearest(static_cast<double>(signed_value)) ? 0U : 1U;
  };
  // Each boundary between neighbours, from both sides: subnormals, all binades, the step to infinity.
  for (unsigned pattern = 0; pattern < format::infinity; ++pattern) {
    const double middle = (format::magnitude(pattern) + format::magnitude(pattern + 1)) / 2;
    const auto tie = static_cast<float>(middle);
    REQUIRE(static_cast<double>(tie) == middle);
    compare(tie);
    compare(std::nextafter(tie, 0.0F));
    compare(std::nextafter(tie, std::numeric_limits<float>::infinity()));
  }
  CHECK(wrong == 0);

  support::random_source random(1);
  for (int i = 0; i < 200000; ++i) {
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(random.bits()));
    if (!std::isnan(value))
      compare(std::abs(value));
  }
  compare(std::numeric_limits<float>::denorm_min());
  compare(std::numeric_limits<float>::max());
  compare(std::numeric_limits<float>::infinity());
  CHECK(wrong == 0);
}

TEST_CASE("known patterns") {
  CHECK(half(1.0F).bits == 0x3c00);
  CHECK(half(-2.0F).bits == 0xc000);
  CHECK(half(65504.0F).bits == 0x7bff);
  CHECK(half(65519.996F).bits == 0x7bff);
  CHECK(half(65520.0F).bits == 0x7c00); // halfway to 65536: to even, that is infinity
  CHECK(half(0x1p-24F).bits == 0x0001);
  CHECK(half(0x1p-25F).bits == 0x0000); // tie between 0 and the smallest subnormal
  CHECK(half(0x1.8p-24F).bits == 0x0002);
  CHECK(half(0x1p-14F).bits == 0x0400);
  CHECK(half(-0.0F).bits == 0x8000);
  CHECK(bfloat16(1.0F).bits == 0x3f80);
  CHECK(bfloat16(3.14159265F).bits == 0x4049);
  CHECK(bfloat16(-0.0F).bits == 0x8000);
  CHECK(bfloat16(std::numeric_limits<float>::max()).bits == 0x7f80);
  CHECK(bfloat16(std::bit_cast<float>(0x7f800001U)).bits == 0x7fc0); // a NaN whose upper half alone reads infinity
  CHECK(half(std::bit_cast<float>(0xff800001U)).bits == 0xfe00);
}

TEST_CASE("which types are computed in, and which are stored") {
  static_assert(hmoe::float_or_double<float> && hmoe::float_or_double<double>);
  static_assert(!hmoe::float_or_double<half> && !hmoe::float_or_double<bfloat16> &&
                !hmoe::float_or_double<long double> && !hmoe::float_or_double<int>);
  static_assert(hmoe::storage_scalar<half> && hmoe::storage_scalar<bfloat16> && !hmoe::storage_scalar<int>);
  static_assert(std::same_as<hmoe::compute_t<half>, float> && std::same_as<hmoe::compute_t<double>, double>);
  static_assert(std::same_as<hmoe::accumulator_t<float>, double>);
  static_assert(!std::is_convertible_v<float, half> && !std::is_convertible_v<float, bfloat16>); // narrowing is said
  static_assert(sizeof(half) == 2 && sizeof(bfloat16) == 2);
  CHECK(static_cast<float>(half{}) == 0.0F);
  CHECK(static_cast<float>(bfloat16{}) == 0.0F);
}
