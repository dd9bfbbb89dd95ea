// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/config.hpp>
#include <hmoe/core/vector_view.hpp>

#include <string_view>

namespace support {

/// A loss of a user for hmoe::losses::of_tokens, on host and device: Σ p_e z_e over a token's routed experts.
struct margin {
  static constexpr std::string_view name = "margin";

  template <class T>
  HMOE_HOST_DEVICE double operator()(hmoe::vector_view<const T> logits, hmoe::vector_view<const T> p,
                                     hmoe::vector_view<const hmoe::index_t> experts, double scale,
                                     hmoe::vector_view<T> d_logits, hmoe::vector_view<T> d_p) const {
    double value = 0;
    for (const hmoe::index_t e : experts)
      if (e < p.size()) {
        value += static_cast<double>(p[e]) * static_cast<double>(logits[e]);
        d_p[e] += static_cast<T>(scale * static_cast<double>(logits[e]));
        d_logits[e] += static_cast<T>(scale * static_cast<double>(p[e]));
      }
    return value;
  }
};

} // namespace support
