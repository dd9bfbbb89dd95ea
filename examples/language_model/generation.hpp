// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/random.hpp>

#include "corpus.hpp"
#include "decoder.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace language_model {

/// Draws an index with probability ∝ exp(logit / temperature), given a uniform number; temperature 0 takes the
/// largest logit.
inline std::size_t sample_index(std::span<const float> logits, double temperature, double uniform) {
  const auto largest = std::max_element(logits.begin(), logits.end());
  const auto best = static_cast<std::size_t>(largest - logits.begin());
  if (temperature <= 0.0)
    return best;
  std::vector<double> cumulative;
  double sum = 0.0;
  for (const float logit : logits) {
    cumulative.push_back(sum += std::exp(static_cast<double>(logit - *largest) / temperature));
  }
  const auto found = std::upper_bound(cumulative.begin(), cumulative.end(), uniform * sum);
  return found == cumulative.end() ? best : static_cast<std::size_t>(found - cumulative.begin());
}

/// The prompt (at least one token) and `count` tokens that the model, made for one window, goes on with.
inline std::vector<token> generate(decoder<float>& model, std::vector<token> text, std::size_t count,
                                   double temperature, hmoe::seed seed) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t visible = std::min(text.size(), model.shape().context);
    const auto logits = model.next_token_logits(std::span<const token>(text).last(visible));
    text.push_back(static_cast<token>(sample_index(logits, temperature, hmoe::uniform(seed, 0, i))));
  }
  return text;
}

} // namespace language_model
