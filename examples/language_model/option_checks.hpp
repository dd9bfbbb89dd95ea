// SPDX-License-Identifier: MIT
#pragma once

#include <CLI/CLI.hpp>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <string>
#include <system_error>

namespace language_model {

/// Accepts whole numbers from `least` to `most` alone, and says so: CLI11's own checks let numbers through that no
/// integer holds, and take the largest instead.
inline CLI::Validator whole_number(std::uint64_t least, std::uint64_t most = 1'000'000'000'000'000) {
  const auto check = [=](const std::string& text) {
    std::uint64_t value = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool ok = status == std::errc{} && end == text.data() + text.size() && value >= least && value <= most;
    return ok ? std::string()
              : "'" + text + "' should be a whole number from " + std::to_string(least) + " to " + std::to_string(most);
  };
  return {check, "", "whole_number"};
}

/// Accepts finite numbers alone.
inline CLI::Validator finite_number() {
  const auto check = [](const std::string& text) {
    double value = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool ok = status == std::errc{} && end == text.data() + text.size() && std::isfinite(value);
    return ok ? std::string() : "'" + text + "' should be a finite number";
  };
  return {check, "", "finite_number"};
}

} // namespace language_model
