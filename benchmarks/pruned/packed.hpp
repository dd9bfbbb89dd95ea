// SPDX-License-Identifier: MIT
#pragma once

#include "../dispatch/any_experts.hpp"
#include "shapes.hpp"

#include <array>
#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

namespace benchmarks {

inline constexpr std::array<std::string_view, 4> pruned_formats{"f32", "bf16", "q8", "q4"};

/// Synthetic experts of the shape at these widths, packed; the neurons of expert e from kept[e] on are zeros.
[[nodiscard]] std::unique_ptr<any_experts> make_synthetic_experts(const pruned_shape& shape, std::string_view format,
                                                                  const std::vector<std::size_t>& widths,
                                                                  const std::vector<std::size_t>& kept);

/// Bits of a weight in a format, its share of scales included.
[[nodiscard]] inline double bits_per_weight(std::string_view format) {
  return format == "f32" ? 32 : format == "bf16" ? 16 : format == "q8" ? 8.5 : 4.5;
}

} // namespace benchmarks
