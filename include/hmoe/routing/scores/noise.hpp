// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>

#include <cmath>
#include <cstdint>

namespace hmoe::routing::detail {

/// Kinds of noise have ranges of positions of their own, so that they stay independent when several act on one batch.
enum class noise_kind : std::uint64_t { logit_normal, gumbel, input_jitter, choice, choice_coin };

[[nodiscard]] constexpr std::uint64_t noise_position(noise_kind kind, std::size_t token, std::size_t per_token,
                                                     std::size_t i) noexcept {
  return (static_cast<std::uint64_t>(kind) << 56U) | (std::uint64_t{token} * per_token + i);
}

/// Standard normal, for logit i of a token.
[[nodiscard]] inline double normal_noise(const noise_source& noise, std::size_t token, std::size_t per_token,
                                         std::size_t i) noexcept {
  return normal(noise.key, noise.step, noise_position(noise_kind::logit_normal, token, per_token, i));
}
/// Standard Gumbel: −log(−log u).
[[nodiscard]] inline double gumbel_noise(const noise_source& noise, std::size_t token, std::size_t per_token,
                                         std::size_t i) noexcept {
  const double u = uniform(noise.key, noise.step, noise_position(noise_kind::gumbel, token, per_token, i));
  return -std::log(-std::log(u));
}
/// Standard Gumbel, by which a choice is drawn, and uniform in (0, 1), for what is decided beside it.
[[nodiscard]] inline double choice_noise(const noise_source& noise, std::size_t token, std::size_t per_token,
                                         std::size_t i) noexcept {
  const double u = uniform(noise.key, noise.step, noise_position(noise_kind::choice, token, per_token, i));
  return -std::log(-std::log(u));
}
[[nodiscard]] inline double choice_coin(const noise_source& noise, std::size_t token, std::size_t per_token,
                                        std::size_t i) noexcept {
  return uniform(noise.key, noise.step, noise_position(noise_kind::choice_coin, token, per_token, i));
}
/// Uniform in (1 − ε, 1 + ε), for value i of a token.
[[nodiscard]] inline double jitter_factor(const noise_source& noise, double epsilon, std::size_t token,
                                          std::size_t per_token, std::size_t i) noexcept {
  const double u = uniform(noise.key, noise.step, noise_position(noise_kind::input_jitter, token, per_token, i));
  return 1 - epsilon + 2 * epsilon * u;
}

} // namespace hmoe::routing::detail

#include <hmoe/core/macros_on.hpp>
