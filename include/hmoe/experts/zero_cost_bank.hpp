// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/scalar.hpp>

#include <cstddef>
#include <cstdint>

namespace hmoe::experts {

/// What the kinds without weights share: `count` experts that are all alike, have width 0, save nothing and cost no
/// floating-point operation.
template <float_or_double T> class zero_cost_bank {
public:
  using value_type = T;

  explicit zero_cost_bank(std::size_t d_model, std::size_t count = 1) : d_model_(d_model), count_(count) {
    require(d_model >= 1, "an expert bank needs d_model >= 1");
    require(count >= 1, "an expert bank needs at least one expert");
  }

  [[nodiscard]] std::size_t size() const noexcept { return count_; }
  [[nodiscard]] std::size_t d_model() const noexcept { return d_model_; }
  [[nodiscard]] static constexpr std::size_t width(std::size_t) noexcept { return 0; }
  [[nodiscard]] static constexpr std::size_t saved_per_row(std::size_t) noexcept { return 0; }
  [[nodiscard]] static constexpr std::size_t scratch_per_row(std::size_t) noexcept { return 0; }
  [[nodiscard]] static constexpr double flops_per_row(std::size_t) noexcept { return 0; }
  [[nodiscard]] static constexpr std::size_t parameter_count(std::size_t) noexcept { return 0; }
  template <class Visitor> static void visit_parameters(Visitor&&) noexcept {}
  static void initialize(seed, std::uint64_t, const initialization&) noexcept {}

private:
  std::size_t d_model_, count_;
};

} // namespace hmoe::experts

#include <hmoe/core/macros_on.hpp>
