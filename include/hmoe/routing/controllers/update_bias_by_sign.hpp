// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/controllers/bias_load.hpp>

#include <cstddef>

namespace hmoe::routing {

/// b_i += rate · sign(mean load − load_i): Wang et al. 2024 (arXiv 2408.15664), DeepSeek-V3 with rate 1e-3. Only the
/// first `moving` experts take part, in the mean too: the others (zero-cost experts, say) keep their bias.
template <class T>
void update_bias_by_sign(vector_view<T> bias, vector_view<const double> load, double rate,
                         std::size_t moving = all_experts) {
  const std::size_t n = detail::moving_experts(bias, load, rate, moving);
  double mean = 0;
  for (std::size_t i = 0; i < n; ++i)
    mean += load[i] / static_cast<double>(n);
  for (std::size_t i = 0; i < n; ++i)
    bias[i] += static_cast<T>(load[i] < mean ? rate : load[i] > mean ? -rate : 0.0);
}

} // namespace hmoe::routing
