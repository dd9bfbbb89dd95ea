// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/losses/auxiliary_loss.hpp>
#include <hmoe/losses/choice_counts.hpp>
#include <hmoe/losses/load_accumulator.hpp>
#include <hmoe/losses/load_balance.hpp>

#include <cstdint>

namespace hmoe::losses {

/// L = N Σ_i f_i P̂_i as in load_balance, but f over the global batch: all micro-batches and processes that were added
/// to `load`; P̂ over this micro-batch (Qwen, arXiv 2501.11873; Megatron's global_aux_loss). Micro-batches of one kind
/// of text may then prefer some experts as long as the whole is balanced. Value at balance: K (to_k) or 1 (to_one).
/// The gradient runs through P̂ only. Add the batch to the accumulator first; the accumulator must outlive the loss.
struct global_load_balance {
  double coefficient = 1e-2;
  const load_accumulator* load = nullptr;
  balance_normalization normalization = balance_normalization::to_k;
  static constexpr std::string_view name = "global_load_balance";

  template <class T> double evaluate(routed_batch<T>& batch) const {
    detail::require_gradient_sinks(batch);
    require(load != nullptr, "global_load_balance has no accumulator: set its member load");
    const std::size_t experts = batch.trace.expert_count();
    require(load->expert_count() == experts, "global_load_balance: the accumulator counts ", load->expert_count(),
            " experts, the batch was routed among ", experts);
    require(load->tokens() >= batch.trace.valid_tokens(), "global_load_balance: the accumulator has ", load->tokens(),
            " tokens, this batch alone has ", batch.trace.valid_tokens(), ": call load_accumulator::add(batch) first");
    double total = 0;
    for (const std::uint64_t count : load->counts())
      total += static_cast<double>(count);
    const double divisor = detail::choice_divisor(normalization, static_cast<double>(load->tokens()), total);
    const auto serving = static_cast<double>(batch.trace.experts_in_service());
    return detail::mean_probability_loss(batch, coefficient, [&](std::size_t e) {
      return load_balance::factor(serving, static_cast<double>(load->counts()[e]), divisor);
    });
  }
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
