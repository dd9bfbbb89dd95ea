// SPDX-License-Identifier: MIT
#include "analysis.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>
#include <utility>

namespace language_model {
namespace {

std::uint64_t total(std::span<const std::uint32_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}

/// Indices 0 … n-1 in ascending order of key; equal keys keep their order.
template <class Key> std::vector<std::size_t> sorted_indices(std::size_t n, Key key) {
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return std::pair(key(i), i); });
  return order;
}

std::vector<std::uint32_t> text_counts(const token_record& record, std::size_t vocabulary) {
  std::vector<std::uint32_t> counts(vocabulary);
  for (const token t : record.tokens)
    ++counts[t];
  return counts;
}

template <class Measure>
nlohmann::json pairwise(const std::vector<std::vector<std::uint32_t>>& experts, Measure measure) {
  auto table = nlohmann::json::array();
  for (const auto& a : experts) {
    auto row = nlohmann::json::array();
    for (const auto& b : experts)
      row.push_back(measure(a, b));
    table.push_back(std::move(row));
  }
  return table;
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

std::vector<top_token> top_tokens(std::span<const std::uint32_t> expert_counts,
                                  std::span<const std::uint32_t> text_counts, std::size_t most, std::uint32_t least) {
  const double in_expert = static_cast<double>(total(expert_counts));
  const double in_text = static_cast<double>(total(text_counts));
  std::vector<top_token> found;
  for (std::size_t t = 0; t < expert_counts.size(); ++t) {
    if (expert_counts[t] < std::max(least, std::uint32_t{1}))
      continue;
    const double lift = (expert_counts[t] / in_expert) / (text_counts[t] / in_text);
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
  for (std::size_t i = 0; i < record.tokens.size(); ++i) {
    loss[record.tokens[i]] += static_cast<double>(record.losses[i]);
  }
  for (std::size_t t = 0; t < vocabulary; ++t)
    loss[t] /= std::max(counts[t], std::uint32_t{1});
  std::vector<double> positions(vocabulary);
  double before = 0.0;
  for (const std::size_t t : sorted_indices(vocabulary, [&](std::size_t i) { return loss[i]; })) {
    const double frequency = counts[t] / static_cast<double>(record.tokens.size());
    positions[t] = before + frequency / 2;
    before += frequency;
  }
  return positions;
}

double wasserstein(std::span<const std::uint32_t> a, std::span<const std::uint32_t> b,
                   std::span<const double> positions) {
  const double sum_a = static_cast<double>(std::max(total(a), std::uint64_t{1}));
  const double sum_b = static_cast<double>(std::max(total(b), std::uint64_t{1}));
  double difference = 0.0; // F_a − F_b so far
  double distance = 0.0;
  double last = 0.0;
  for (const std::size_t t : sorted_indices(positions.size(), [&](std::size_t i) { return positions[i]; })) {
    distance += std::abs(difference) * (positions[t] - last);
    difference += a[t] / sum_a - b[t] / sum_b;
    last = positions[t];
  }
  return distance;
}

double symmetric_divergence(std::span<const std::uint32_t> a, std::span<const std::uint32_t> b) {
  const double smoothing = 0.5 * static_cast<double>(a.size());
  const double sum_a = static_cast<double>(total(a)) + smoothing;
  const double sum_b = static_cast<double>(total(b)) + smoothing;
  double divergence = 0.0;
  for (std::size_t t = 0; t < a.size(); ++t) {
    const double p = (a[t] + 0.5) / sum_a;
    const double q = (b[t] + 0.5) / sum_b;
    divergence += (p - q) * std::log(p / q);
  }
  return divergence / 2;
}

nlohmann::json analyse(const token_record& record, std::span<const std::string> pieces) {
  constexpr std::size_t bins = 10;
  constexpr std::size_t most = 10;
  constexpr std::uint32_t least = 20;
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
    auto experts = nlohmann::json::array();
    for (const auto& expert : layer) {
      auto tokens = nlohmann::json::array();
      for (const auto& top : top_tokens(expert, in_text, most, least)) {
        tokens.push_back({{"token", printable(pieces[top.token])}, {"count", top.count}, {"lift", top.lift}});
      }
      experts.push_back(std::move(tokens));
    }
    result["top_tokens"].push_back(std::move(experts));
    result["distance"].push_back(
        pairwise(layer, [&](const auto& a, const auto& b) { return wasserstein(a, b, positions); }));
    result["synergy"].push_back(
        pairwise(layer, [](const auto& a, const auto& b) { return symmetric_divergence(a, b); }));
  }
  return result;
}

} // namespace language_model
