// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/losses/auxiliary_loss.hpp>
#include <hmoe/losses/choice_counts.hpp>
#include <hmoe/losses/small_memory.hpp>

#include <algorithm>

namespace hmoe::losses {

/// The load-balancing loss of each sequence by itself, averaged over the sequences that have tokens:
///   L = mean_s N Σ_i f_{s,i} P̂_{s,i},   P̂_{s,i} = (1/T_s) Σ_{t∈s} q_{t,i},   q_{t,i} = P_{t,i} / Σ_j P_{t,j}
/// with f over the tokens of the sequence, as in load_balance. The defaults are the sequence-wise loss of DeepSeek-V3
/// (arXiv 2412.19437 eq. 17–20), where P are sigmoid scores and f is divided by K·T_s; its coefficient is 1e-4. Value
/// at balance within every sequence: 1 (to_one) or K (to_k). The gradient runs through q, f is constant.
/// Sequences come from trace.inputs().sequence_offsets [S+1], which start at 0, ascend and end at T, or
/// hmoe::error; without any the batch is one sequence.
struct sequence_balance {
  double coefficient = 1e-4;
  balance_counts counts = balance_counts::all_choices;
  balance_normalization normalization = balance_normalization::to_one;
  bool normalize_scores = true; ///< off: q = P, for scores that add up to 1 already
  static constexpr std::string_view name = "sequence_balance";

  template <class T> double evaluate(routed_batch<T>& batch) const {
    detail::require_gradient_sinks(batch);
    detail::require_probabilities(batch);
    const index_t whole[] = {0, static_cast<index_t>(batch.trace.tokens())};
    vector_view<const index_t> offsets = batch.trace.inputs().sequence_offsets;
    if (offsets.empty())
      offsets = vector_view<const index_t>(whole, 2);
    check(offsets, batch.trace.tokens());
    double sequences = 0;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
      sequences += valid_tokens(batch, offsets[s], offsets[s + 1]) != 0 ? 1 : 0;
    detail::small_memory memory;
    buffer<double> f = memory.zeros<double>(batch.trace.expert_count());
    double value = 0;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
      if (valid_tokens(batch, offsets[s], offsets[s + 1]) != 0)
        value += evaluate_sequence(batch, offsets[s], offsets[s + 1], 1 / sequences, f.view());
    return value;
  }

private:
  static void check(vector_view<const index_t> offsets, std::size_t tokens) {
    require(offsets[0] == 0 && offsets[offsets.size() - 1] == tokens, "sequence_balance: the sequences span tokens ",
            offsets[0], " to ", offsets[offsets.size() - 1], ", the batch has tokens 0 to ", tokens);
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
      require(offsets[s] <= offsets[s + 1], "sequence_balance: sequence ", s, " ends at token ", offsets[s + 1],
              " before it begins at ", offsets[s]);
  }

  template <class T>
  [[nodiscard]] static std::size_t valid_tokens(const routed_batch<T>& batch, std::size_t first, std::size_t last) {
    std::size_t count = 0;
    for (std::size_t t = first; t < last; ++t)
      count += batch.trace.is_valid(t) ? 1 : 0;
    return count;
  }

  /// The sequence of tokens [first, last), which counts with `weight`.
  template <class T>
  double evaluate_sequence(routed_batch<T>& batch, std::size_t first, std::size_t last, double weight,
                           vector_view<double> f) const {
    const auto p = batch.trace.probabilities();
    const auto d_p = batch.trace.d_probabilities();
    const auto tokens = static_cast<double>(valid_tokens(batch, first, last)),
               experts = static_cast<double>(batch.trace.experts_in_service());
    std::fill(f.begin(), f.end(), 0.0);
    const double total = detail::count_choices(batch, counts, first, last, f);
    const double divisor = detail::choice_divisor(normalization, tokens, total);
    for (double& count : f)
      count = detail::choice_rate(count, divisor);
    double value = 0;
    for (std::size_t t = first; t < last; ++t) {
      if (!batch.trace.is_valid(t))
        continue;
      double sum = 0, dot = 0;
      for (std::size_t e = 0; e < f.size(); ++e) {
        sum += static_cast<double>(p(t, e));
        dot += f[e] * static_cast<double>(p(t, e));
      }
      if (!normalize_scores)
        sum = 1;
      if (!(sum > 0)) // a token without any score has no distribution
        continue;
      const double mean = dot / sum; // Σ f q
      value += mean;
      for (std::size_t e = 0; e < f.size(); ++e)
        d_p(t, e) +=
            static_cast<T>(coefficient * weight * experts / tokens * (normalize_scores ? (f[e] - mean) / sum : f[e]));
    }
    return value * weight * experts / tokens;
  }
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
