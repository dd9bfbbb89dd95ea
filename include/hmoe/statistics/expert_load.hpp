// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/plan.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/statistics/number_list.hpp>

#include <cstdint>
#include <numeric>
#include <vector>

namespace hmoe::statistics {

/// How many tokens each expert of a layer got, over as many batches as were added.
struct expert_load {
  std::vector<std::uint64_t> tokens_per_expert; ///< [N]
  std::uint64_t tokens = 0; ///< of the batches, with or without an expert; padding tokens do not count

  expert_load() = default;
  explicit expert_load(std::size_t experts) : tokens_per_expert(experts) {}

  /// What the router assigned; hmoe::error for an id that is not below N. Shared experts count like others if N
  /// includes them.
  template <class T> void add(const assignment<T>& assigned) {
    for (const index_t e : assigned.experts())
      require(e < tokens_per_expert.size(), "the assignment names expert ", e, ", the statistic has ",
              tokens_per_expert.size());
    for (const index_t e : assigned.experts())
      ++tokens_per_expert[e];
    tokens += assigned.valid_tokens();
  }
  /// What the experts worked on: without dropped entries and without padding. `batch_tokens` is T, or
  /// assignment::valid_tokens() where the batch has padding, which a plan does not know.
  void add(const plan& planned, std::size_t batch_tokens) {
    require_size(planned.expert_count());
    for (std::size_t e = 0; e < tokens_per_expert.size(); ++e)
      for (const index_t token : planned.tokens().subview(planned.offsets()[e], planned.rows_of(e)))
        tokens_per_expert[e] += token != no_index ? 1U : 0U;
    tokens += batch_tokens;
  }
  /// The routed experts only.
  template <class T> void add(const router_trace<T>& trace) {
    require_size(trace.expert_count());
    for (std::size_t e = 0; e < tokens_per_expert.size(); ++e)
      tokens_per_expert[e] += trace.tokens_per_expert()[e];
    tokens += trace.valid_tokens();
  }
  /// What another thread, process or period counted.
  void merge(const expert_load& other) {
    require_size(other.tokens_per_expert.size());
    for (std::size_t e = 0; e < tokens_per_expert.size(); ++e)
      tokens_per_expert[e] += other.tokens_per_expert[e];
    tokens += other.tokens;
  }

  /// (token, expert) pairs.
  [[nodiscard]] std::uint64_t activations() const noexcept {
    return std::accumulate(tokens_per_expert.begin(), tokens_per_expert.end(), std::uint64_t{0});
  }
  /// Mean experts per token; 0 without tokens.
  [[nodiscard]] double experts_per_token() const noexcept { return over_tokens(static_cast<double>(activations())); }
  /// [N] share of all activations that each expert has; adds up to 1, or is 0 without any.
  [[nodiscard]] std::vector<double> shares() const {
    const auto sum = static_cast<double>(activations());
    std::vector<double> result;
    for (const std::uint64_t count : tokens_per_expert)
      result.push_back(sum > 0 ? static_cast<double>(count) / sum : 0);
    return result;
  }
  /// [N] tokens × cost of a token, for instance FLOPs per expert from its flops_per_token.
  template <number_list Cost> [[nodiscard]] std::vector<double> times(const Cost& cost_per_token) const {
    require_size(detail::count_of(cost_per_token));
    std::vector<double> result;
    for (std::size_t e = 0; e < tokens_per_expert.size(); ++e)
      result.push_back(static_cast<double>(tokens_per_expert[e]) * detail::at(cost_per_token, e));
    return result;
  }
  /// Mean over the tokens of the summed cost of their experts: activated width, parameters, FLOPs, whatever `cost` is.
  template <number_list Cost> [[nodiscard]] double per_token(const Cost& cost) const {
    const std::vector<double> sums = times(cost);
    return over_tokens(std::accumulate(sums.begin(), sums.end(), 0.0));
  }
  /// [N] bytes that each expert moves when its weights are read once per batch that has a token for it, and each token
  /// moves `bytes_per_token` (its row in and out). For the load of one batch.
  template <number_list Bytes>
  [[nodiscard]] std::vector<double> bytes(const Bytes& parameter_bytes, double bytes_per_token) const {
    require_size(detail::count_of(parameter_bytes));
    std::vector<double> result;
    for (std::size_t e = 0; e < tokens_per_expert.size(); ++e) {
      const auto count = static_cast<double>(tokens_per_expert[e]);
      result.push_back(count > 0 ? detail::at(parameter_bytes, e) + count * bytes_per_token : 0);
    }
    return result;
  }

private:
  [[nodiscard]] double over_tokens(double sum) const noexcept {
    return tokens > 0 ? sum / static_cast<double>(tokens) : 0;
  }
  void require_size(std::size_t size) const {
    require(size == tokens_per_expert.size(), "the statistic counts ", tokens_per_expert.size(),
            " experts, what was given has ", size);
  }
};

} // namespace hmoe::statistics

#include <hmoe/core/macros_on.hpp>
