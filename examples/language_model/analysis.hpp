// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix.hpp>

#include "token.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace language_model {

/// What the held-out evaluation saw, token by token. A token's difficulty is its own loss: how badly the model
/// predicted what follows it.
struct token_record {
  std::vector<token> tokens;                       ///< input tokens
  std::vector<float> losses;                       ///< in nats
  std::vector<std::vector<float>> widths;          ///< [layer][token] activated width
  std::vector<hmoe::matrix<std::uint64_t>> counts; ///< [layer], [expert][vocabulary] activations

  token_record(std::size_t layers, std::size_t experts, std::size_t vocabulary)
      : widths(layers), counts(layers, hmoe::matrix<std::uint64_t>(experts, vocabulary)) {}
};

/// Pearson's correlation; 0 where one side does not vary.
double correlation(std::span<const float> a, std::span<const float> b);

/// Tokens sorted by difficulty and cut into bins of equal count, each with its mean activated width per layer.
struct difficulty_bin {
  double from;
  double to;
  std::size_t tokens;
  std::vector<double> mean_width_per_layer;
};
std::vector<difficulty_bin> difficulty_bins(const token_record& record, std::size_t bins);

/// The tokens that an expert sees more often than the text as a whole does: lift = P(token | expert) / P(token),
/// highest first, among tokens with at least `least` activations in this expert.
struct top_token {
  std::size_t token;
  std::uint64_t count;
  double lift;
};
std::vector<top_token> top_tokens(std::span<const std::uint64_t> expert_counts,
                                  std::span<const std::uint64_t> text_counts, std::size_t most, std::uint64_t least);

/// Position of each token of the vocabulary on an axis from 0 (easiest) to 1: statistics::quantile_positions by mean
/// loss. So an expert that takes every token alike is spread evenly over [0, 1].
std::vector<double> difficulty_positions(const token_record& record, std::size_t vocabulary);

/// All of the above, and how far the first `experts` of each layer are apart, as the members "difficulty",
/// "top_tokens", "distance" (statistics::wasserstein over those positions: 0 when both see the same mixture of easy and
/// hard tokens, 1 when one sees only the easiest and the other only the hardest) and "synergy" (statistics::
/// symmetric_divergence) of a run's results.
nlohmann::json analyse(const token_record& record, std::span<const std::string> pieces, std::size_t experts);

} // namespace language_model
