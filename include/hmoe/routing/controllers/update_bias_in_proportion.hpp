// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/vector_view.hpp>
#include <hmoe/routing/controllers/bias_load.hpp>

#include <cstddef>

namespace hmoe::routing {

/// b_i += rate · (share − load_i / Σ load), the sum over all experts: LongCat-Flash (arXiv 2509.01322). `share`: what
/// each of the first `moving` experts should have of the load, for LongCat (wanted FFN experts per token) / (experts
/// per token · number of FFN experts); the others, there the zero-computation experts, keep their bias.
template <class T>
void update_bias_in_proportion(vector_view<T> bias, vector_view<const double> load, double rate, double share,
                               std::size_t moving = all_experts) {
  const std::size_t n = detail::moving_experts(bias, load, rate, moving);
  double sum = 0;
  for (const double value : load)
    sum += value;
  if (sum == 0)
    return;
  for (std::size_t i = 0; i < n; ++i)
    bias[i] += static_cast<T>(rate * (share - load[i] / sum));
}

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
