// SPDX-License-Identifier: MIT
#include "analysis.hpp"

#include <hmoe/statistics/divergence.hpp>
#include <hmoe/statistics/wasserstein.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>
#include <utility>

namespace language_model {
namespace {

/// Indices 0 … n-1 in ascending order of key; equal keys keep their order.
template <class Key> std::vector<std::size_t> sorted_indices(std::size_t n, Key key) {
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return std::pair(key(i), i); });
  return order;
}

std::vector<std::uint64_t> text_counts(const token_record& record, std::size_t vocabulary) {
  std::vector<std::uint64_t> counts(vocabulary);
  for (const token t : record.tokens)
    ++counts[t];
  return counts;
}

nlohmann::json rows_of(const hmoe::matrix<double>& table) {
  auto rows = nlohmann::json::array();
  for (std::size_t i = 0; i < table.rows(); ++i)
    rows.push_back(std::vector<double>(table.row(i).begin(), table.row(i).end()));
  return rows;
}

/// Pieces cut inside a character are no UTF-8 on their own, which JSON demands: those bytes are shown as \xHH.
std::string printable(const std::string& piece) {
  if (std::ranges::all_of(piece, [](char c) { return c >= ' ' && c <= '~'; }))
    return piece;
  if (piece.size() > 1 || piece == "\n")
    return piece;
  constexpr std::string_view digits = "0123456789ABCDEF";
  const auto byte = static_cast<unsigned char>(piece.empty() ? '\0' : piece[0]);
  return std::string("\\x") + digits[byte >> 4U] + digits[byte & 15U];
}

} // namespace

double correlation(std::span<const float> a, std::span<const float> b) {
  const double n = static_cast<double>(a.size());
  const double mean_a = std::accumulate(a.begin(), a.end(), 0.0) / n;
  const double mean_b = std::accumulate(b.begin(), b.end(), 0.0) / n;
  double ab = 0.0;
  double aa = 0.0;
  double bb = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double da = static_cast<double>(a[i]) - mean_a;
    const double db = static_cast<double>(b[i]) - mean_b;
    ab += da * db;
    aa += da * da;
    bb += db * db;
  }
  return aa > 0.0 && bb > 0.0 ? ab / std::sqrt(aa * bb) : 0.0;
}

std::vector<difficulty_bin> difficulty_bins(const token_record& record, std::size_t bins) {
  const auto order = sorted_indices(record.losses.size(), [&](std::size_t i) { return record.losses[i]; });
  std::vector<difficulty_bin> result;
  for (std::size_t b = 0; b < bins; ++b) {
    const std::size_t first = order.size() * b / bins;
    const std::size_t last = order.size() * (b + 1) / bins;
    if (first == last)
      continue;
    difficulty_bin bin{record.losses[order[first]], record.losses[order[last - 1]], last - first, {}};
    for (const auto& widths : record.widths) {
      double sum = 0.0;
      for (std::size_t i = first; i < last; ++i)
        sum += static_cast<double>(widths[order[i]]);
      bin.mean_width_per_layer.push_back(sum / static_cast<double>(bin.tokens));
    }
    result.push_back(std::move(bin));
  }
  return result;
}

std::vector<top_token> top_tokens(std::span<const std::uint64_t> expert_counts,
                                  std::span<const std::uint64_t> text_counts, std::size_t most, std::uint64_t least) {
  const auto in_expert = static_cast<double>(std::reduce(expert_counts.begin(), expert_counts.end()));
  const auto in_text = static_cast<double>(std::reduce(text_counts.begin(), text_counts.end()));
  std::vector<top_token> found;
  for (std::size_t t = 0; t < expert_counts.size(); ++t) {
    if (expert_counts[t] < std::max(least, std::uint64_t{1}))
      continue;
    const double lift =
        (static_cast<double>(expert_counts[t]) / in_expert) / (static_cast<double>(text_counts[t]) / in_text);
    found.push_back({t, expert_counts[t], lift});
  }
  std::ranges::sort(found, [](const top_token& a, const top_token& b) {
    return a.lift != b.lift ? a.lift > b.lift : a.token < b.token;
  });
  found.resize(std::min(most, found.size()));
  return found;
}

std::vector<double> difficulty_positions(const token_record& record, std::size_t vocabulary) {
  std::vector<double> loss(vocabulary);
  const auto counts = text_counts(record, vocabulary);
  for (std::size_t i = 0; i < record.tokens.size(); ++i)
    loss[record.tokens[i]] += static_cast<double>(record.losses[i]);
  for (std::size_t t = 0; t < vocabulary; ++t)
    loss[t] /= static_cast<double>(std::max(counts[t], std::uint64_t{1}));
  return hmoe::statistics::quantile_positions(loss, counts);
}

nlohmann::json analyse(const token_record& record, std::span<const std::string> pieces, std::size_t experts) {
  constexpr std::size_t bins = 10;
  constexpr std::size_t most = 10;
  constexpr std::uint64_t least = 20;
  nlohmann::json result;
  for (const auto& bin : difficulty_bins(record, bins)) {
    result["difficulty"]["bins"].push_back({{"from", bin.from},
                                            {"to", bin.to},
                                            {"tokens", bin.tokens},
                                            {"mean_width_per_layer", bin.mean_width_per_layer}});
  }
  for (const auto& widths : record.widths) {
    result["difficulty"]["correlation_per_layer"].push_back(correlation(record.losses, widths));
  }
  const auto positions = difficulty_positions(record, pieces.size());
  const auto in_text = text_counts(record, pieces.size());
  for (const auto& layer : record.counts) {
    const hmoe::matrix_view<const std::uint64_t> counts = layer.view().row_block(0, experts);
    auto top_of_experts = nlohmann::json::array();
    for (std::size_t e = 0; e < experts; ++e) {
      auto tokens = nlohmann::json::array();
      for (const auto& top : top_tokens(counts.row(e), in_text, most, least)) {
        tokens.push_back({{"token", printable(pieces[top.token])}, {"count", top.count}, {"lift", top.lift}});
      }
      top_of_experts.push_back(std::move(tokens));
    }
    result["top_tokens"].push_back(std::move(top_of_experts));
    result["distance"].push_back(rows_of(hmoe::statistics::wasserstein_matrix(counts, positions)));
    result["synergy"].push_back(rows_of(hmoe::statistics::synergy_matrix(counts)));
  }
  return result;
}

} // namespace language_model
