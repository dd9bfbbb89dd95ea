// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/io/routing_log.hpp>
#include <hmoe/io/routing_text.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace benchmarks {

/// How tokens spread over experts: in proportion to rank^-s (s = 0: evenly); the first choice of all tokens the same
/// expert; every second expert without a token; or as a routing log says.
inline constexpr std::array<std::string_view, 9> all_loads{"uniform",  "zipf_0.5", "zipf_0.7",   "zipf_1.0", "zipf_1.3",
                                                           "zipf_1.5", "hot",      "half_empty", "recorded"};

/// Records of a routing log, or of its form as text (.jsonl), by layer and step as they stand there.
[[nodiscard]] inline std::vector<hmoe::io::routing_log_record<float>> read_log(const std::string& path) {
  return path.ends_with(".jsonl") ? hmoe::io::read_routing_text<float>(path) : hmoe::io::read_routing_log<float>(path);
}

/// entries[t]: the experts of each token, ascending, and the weights.
[[nodiscard]] inline hmoe::assignment<float>
assignment_of(const std::vector<std::vector<std::pair<hmoe::index_t, float>>>& entries) {
  hmoe::assignment<float> made;
  made.resize_tokens(entries.size());
  for (std::size_t t = 0; t < entries.size(); ++t)
    made.offsets()[t + 1] = static_cast<hmoe::index_t>(entries[t].size());
  made.sum_counts();
  made.resize_entries();
  std::size_t at = 0;
  for (const auto& token : entries)
    for (const auto& [expert, weight] : token) {
      made.experts()[at] = expert;
      made.weights()[at++] = weight;
    }
  return made;
}

/// An assignment of `tokens` tokens to k of `experts` experts each, of weight 1/k: a function of its arguments.
[[nodiscard]] inline hmoe::assignment<float> make_load(std::string_view load, std::size_t tokens, std::size_t experts,
                                                       std::size_t k, std::uint64_t stream) {
  std::vector<std::size_t> rank(experts);
  std::iota(rank.begin(), rank.end(), std::size_t{0});
  std::ranges::shuffle(rank, std::mt19937_64{7}); // popular experts are neither the narrow nor the wide ones
  const double skew = load.starts_with("zipf_") ? std::stod(std::string(load.substr(5))) : 0;
  std::mt19937_64 random{stream * 1000003 + tokens};
  std::uniform_real_distribution<double> between(1e-12, 1);
  std::vector<std::pair<double, hmoe::index_t>> keys(experts); // the k largest of log p + Gumbel noise: without return
  std::vector<std::vector<std::pair<hmoe::index_t, float>>> entries(tokens);
  for (auto& token : entries) {
    for (std::size_t e = 0; e < experts; ++e) {
      double log_share = -skew * std::log(static_cast<double>(rank[e] + 1));
      if (load == "hot" && rank[e] == 0)
        log_share = 1e3;
      if (load == "half_empty" && rank[e] % 2 == 1)
        log_share = -1e3;
      keys[e] = {log_share - std::log(-std::log(between(random))), static_cast<hmoe::index_t>(e)};
    }
    std::ranges::partial_sort(keys, keys.begin() + static_cast<std::ptrdiff_t>(k), std::greater<>{});
    for (std::size_t i = 0; i < k; ++i)
      token.emplace_back(keys[i].second, 1.0F / static_cast<float>(k));
    std::ranges::sort(token);
  }
  return assignment_of(entries);
}

/// `tokens` tokens of the log's records that are of so many experts, from the `stream`-th part of them on, the first
/// one behind the last one.
[[nodiscard]] inline hmoe::assignment<float> recorded_load(const std::vector<hmoe::io::routing_log_record<float>>& log,
                                                           std::size_t tokens, std::size_t experts,
                                                           std::uint64_t stream) {
  std::vector<std::vector<std::pair<hmoe::index_t, float>>> all, entries;
  for (const auto& record : log)
    for (std::size_t t = 0; record.experts == experts && t < record.assigned.tokens(); ++t) {
      const auto ids = record.assigned.experts_of(t);
      const auto weights = record.assigned.weights_of(t);
      auto& token = all.emplace_back();
      for (std::size_t i = 0; i < ids.size(); ++i)
        token.emplace_back(ids[i], weights[i]);
    }
  hmoe::require(!all.empty(), "the routing log has no record of ", experts, " experts");
  for (std::size_t t = 0; t < tokens; ++t)
    entries.push_back(all[(stream * tokens + t) % all.size()]);
  return assignment_of(entries);
}

} // namespace benchmarks
