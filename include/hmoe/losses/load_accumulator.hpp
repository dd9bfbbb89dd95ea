// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/losses/choice_counts.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <vector>

namespace hmoe::losses {

/// How often each expert of a layer was chosen over several micro-batches, and with an all-reduce over several
/// processes: the f of global_load_balance. Per step: clear(), then for each micro-batch forward, add(batch), and the
/// loss. One object per layer.
class load_accumulator {
public:
  explicit load_accumulator(std::size_t experts, balance_counts counted = balance_counts::all_choices)
      : counted_(counted), totals_(experts + 1), batch_(experts + 1) {}

  [[nodiscard]] std::size_t expert_count() const noexcept { return totals_.size() - 1; }
  /// Tokens added so far, of all processes that were reduced over.
  [[nodiscard]] std::uint64_t tokens() const noexcept { return totals_.back(); }
  /// [N] choices per expert so far.
  [[nodiscard]] std::span<const std::uint64_t> counts() const noexcept {
    return std::span(totals_).first(expert_count());
  }

  /// Adds the choices of a batch. `all_reduce`, any callable on std::span<std::uint64_t>, must replace the N + 1
  /// numbers (choices per expert, then the number of tokens) by their sums over all processes. It sees this batch only,
  /// so what was added before is not summed twice; every process must call add equally often, with empty batches if
  /// need be.
  template <class T, class AllReduce> void add(const routed_batch<T>& batch, AllReduce&& all_reduce) {
    static_assert(
        std::invocable<AllReduce&, std::span<std::uint64_t>>,
        "hmoe::losses::load_accumulator::add: AllReduce is not callable with std::span<std::uint64_t>: pass a "
        "function that replaces the N + 1 counts by their sums over all processes");
    require(batch.trace.expert_count() == expert_count(), "load_accumulator: the batch was routed among ",
            batch.trace.expert_count(), " experts, the accumulator counts ", expert_count());
    std::fill(batch_.begin(), batch_.end(), std::uint64_t{0});
    detail::count_choices(batch, counted_, 0, batch.trace.tokens(),
                          vector_view<std::uint64_t>(batch_.data(), expert_count()));
    batch_.back() = batch.trace.valid_tokens();
    all_reduce(std::span<std::uint64_t>(batch_));
    for (std::size_t i = 0; i < totals_.size(); ++i)
      totals_[i] += batch_[i];
  }
  /// Adds the choices of a batch of this process alone.
  template <class T> void add(const routed_batch<T>& batch) {
    add(batch, [](std::span<std::uint64_t>) {});
  }
  void clear() noexcept { std::fill(totals_.begin(), totals_.end(), std::uint64_t{0}); }

private:
  balance_counts counted_;
  std::vector<std::uint64_t> totals_, batch_; ///< [N + 1], the tokens last
};

} // namespace hmoe::losses

#include <hmoe/core/macros_on.hpp>
