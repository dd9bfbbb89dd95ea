// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd/cpu_maker.hpp>
#include <hmoe/core/error.hpp>

#include <cstdlib>
#include <string_view>

namespace hmoe::python {

/// How weights of bfloat16 are multiplied without gradients: in pairs (vdpbf16ps), or widened to float in registers.
enum class bfloat16_products { pairs, floats };

/// The quicker one on this CPU, where it has both. Multiply-adds a second in pairs ÷ in float: 2 on AMD's Zen 4 and 5,
/// 0.5 on an Intel Xeon with AVX-512 BF16. By the maker's name and not by trying, so that results have the same bits in
/// every process. HMOE_BF16=pairs or floats says it for tests.
[[nodiscard]] inline bfloat16_products chosen_bfloat16_products() {
#if defined(__AVX512BF16__)
  static const bfloat16_products chosen = [] {
    const char* const asked = std::getenv("HMOE_BF16");
    const std::string_view name = asked == nullptr ? "" : asked;
    require(name.empty() || name == "pairs" || name == "floats", "HMOE_BF16=", name, ": known are pairs and floats");
    if (!name.empty())
      return name == "pairs" ? bfloat16_products::pairs : bfloat16_products::floats;
    return backends::simd_detail::on_intel() ? bfloat16_products::floats : bfloat16_products::pairs;
  }();
  return chosen;
#else
  return bfloat16_products::floats;
#endif
}

} // namespace hmoe::python
