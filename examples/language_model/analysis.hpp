// SPDX-License-Identifier: MIT
#pragma once

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
  std::vector<token> tokens;                                   ///< input tokens
  std::vector<float> losses;                                   ///< in nats
  std::vector<std::vector<float>> widths;                      ///< [layer][token] activated width
  std::vector<std::vector<std::vector<std::uint32_t>>> counts; ///< [layer][expert][vocabulary] activations

  token_record(std::size_t layers, std::size_t experts, std::size_t vocabulary)
      : widths(layers),
        counts(layers, std::vector<std::vector<std::uint32_t>>(experts, std::vector<std::uint32_t>(vocabulary))) {}
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
  std::uint32_t count;
  double lift;
};
std::vector<top_token> top_tokens(std::span<const std::uint32_t> expert_counts,
                                  std::span<const std::uint32_t> text_counts, std::size_t most, std::uint32_t least);

/// Position of each token of the vocabulary on an axis from 0 (easiest) to 1: tokens ordered by their mean loss, each
/// taking a piece as long as its frequency in the text and placed at its middle. So an expert that takes every
/// token alike is spread evenly over [0, 1].
std::vector<double> difficulty_positions(const token_record& record, std::size_t vocabulary);

/// 1-Wasserstein distance between two experts' distributions over those positions: ∫ |F_a − F_b|. 0 when both see
/// the same mixture of easy and hard tokens, 1 when one sees only the easiest and the other only the hardest.
double wasserstein(std::span<const std::uint32_t> a, std::span<const std::uint32_t> b,
                   std::span<const double> positions);

/// (KL(a‖b) + KL(b‖a)) / 2 in nats between two experts' token distributions, each smoothed by half a count per
/// token of the vocabulary. Low where two experts work on the same tokens.
double symmetric_divergence(std::span<const std::uint32_t> a, std::span<const std::uint32_t> b);

/// All of the above as the members "difficulty", "top_tokens", "distance" and "synergy" of a run's results.
nlohmann::json analyse(const token_record& record, std::span<const std::string> pieces);

} // namespace language_model
