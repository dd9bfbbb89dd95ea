// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cmath>
#include <cstdint>
#include <numbers>

namespace hmoe {

/// Names a stream of random numbers.
struct seed {
  std::uint64_t value = 0;
};

/// Philox4x32-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"): four 32-bit words as a
/// function of a 128-bit counter and a 64-bit key. There is no state, so any thread can draw any element and the
/// bits do not depend on how the work was divided.
struct philox {
  template <std::size_t Count> struct words { // std::array is not for devices
    std::uint32_t values[Count];
    HMOE_HOST_DEVICE constexpr std::uint32_t operator[](std::size_t i) const noexcept { return values[i]; }
    bool operator==(const words&) const = default;
  };
  using block = words<4>;

  HMOE_HOST_DEVICE static constexpr block generate(block counter, words<2> key) noexcept {
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t a = std::uint64_t{0xD2511F53U} * counter[0];
      const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * counter[2];
      counter = {static_cast<std::uint32_t>(b >> 32U) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
                 static_cast<std::uint32_t>(a >> 32U) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
      key = {key[0] + 0x9E3779B9U, key[1] + 0xBB67AE85U};
    }
    return counter;
  }

  HMOE_HOST_DEVICE static constexpr block generate(seed key, std::uint64_t stream, std::uint64_t position) noexcept {
    return generate({static_cast<std::uint32_t>(position), static_cast<std::uint32_t>(position >> 32U),
                     static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32U)},
                    {static_cast<std::uint32_t>(key.value), static_cast<std::uint32_t>(key.value >> 32U)});
  }
};

/// Two words as a uniform value in (0, 1): never 0, so that its logarithm exists, and never 1.
[[nodiscard]] HMOE_HOST_DEVICE constexpr double unit_interval(std::uint32_t high, std::uint32_t low) noexcept {
  const std::uint64_t bits = (std::uint64_t{high} << 20U) | (low >> 12U); // 52 bits, so that + 0.5 is exact
  return (static_cast<double>(bits) + 0.5) * 0x1p-52;
}

/// Element `position` of the stream: uniform in (0, 1).
[[nodiscard]] HMOE_HOST_DEVICE constexpr double uniform(seed key, std::uint64_t stream,
                                                        std::uint64_t position) noexcept {
  const auto words = philox::generate(key, stream, position);
  return unit_interval(words[0], words[1]);
}

/// Element `position` of the stream: standard normal, by Box and Muller.
[[nodiscard]] inline double normal(seed key, std::uint64_t stream, std::uint64_t position) noexcept {
  const auto words = philox::generate(key, stream, position);
  const double radius = std::sqrt(-2.0 * std::log(unit_interval(words[0], words[1])));
  return radius * std::cos(2.0 * std::numbers::pi * unit_interval(words[2], words[3]));
}

/// Fills values with normal(0, stddev) numbers: element i of the stream is value i.
template <class T> void fill_normal(vector_view<T> values, double stddev, seed key, std::uint64_t stream) noexcept {
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<T>(stddev * normal(key, stream, i));
}

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
