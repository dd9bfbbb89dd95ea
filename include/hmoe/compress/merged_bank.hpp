// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/compress/neurons.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/observed.hpp>
#include <hmoe/experts/bank.hpp>
#include <hmoe/experts/expert_set.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe::compress {

/// A bank for inference whose experts share stored ones: expert e is stored expert stored_of()[e], which several ids
/// may name, and whose weights are in memory once. Outputs have the bits of a layer with a copy for each id. A token
/// that is routed to two ids of one stored expert meets it twice. Bank is a bank with parameters or a packed one.
template <class Bank> class merged_bank {
  static_assert(expert_bank<Bank> || inference_bank<Bank>,
                "hmoe::compress::merged_bank: Bank is no bank of experts: see hmoe/experts/bank.hpp");

public:
  using value_type = typename Bank::value_type;
  static constexpr bool observes_stages = true; // by the set within

  /// hmoe::error unless stored_of names experts of the bank, each of them at least once.
  merged_bank(Bank stored, std::vector<std::size_t> stored_of)
      : stored_(std::move(stored)), stored_of_(std::move(stored_of)) {
    std::vector<std::size_t> sharing(stored_.size());
    first_of_.resize(stored_.size());
    for (std::size_t e = 0; e < stored_of_.size(); ++e) {
      const std::size_t s = stored_of_[e];
      require(s < stored_.size(), "expert ", e, " shall be stored expert ", s, " of ", stored_.size());
      if (sharing[s] == 0)
        first_of_[s] = e;
      round_of_.push_back(sharing[s]++);
      rounds_ = std::max(rounds_, sharing[s]);
    }
    for (std::size_t s = 0; s < sharing.size(); ++s)
      require(sharing[s] != 0, "stored expert ", s, " of ", sharing.size(), " has no id");
  }

  /// The experts that are in memory.
  [[nodiscard]] const expert_set<Bank>& stored() const noexcept { return stored_; }
  [[nodiscard]] vector_view<const std::size_t> stored_of() const noexcept {
    return {stored_of_.data(), stored_of_.size()};
  }
  /// The same sharing with f(bank of stored experts) in place of them; simd::pack packs merged banks by it.
  template <class F> [[nodiscard]] auto with_stored(const F& f) const {
    return merged_bank<std::remove_cvref_t<decltype(f(stored_.template bank<0>()))>>(f(stored_.template bank<0>()),
                                                                                     stored_of_);
  }
  /// A bank with a copy for each id, to save or to train.
  [[nodiscard]] Bank separate() const
    requires neuron_bank<Bank>
  {
    const Bank views = detail::some_experts(stored_.template bank<0>(), stored_of_);
    return Bank(views); // copies own their weights
  }

  [[nodiscard]] std::size_t size() const noexcept { return stored_of_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return stored_.d_model(); }
  [[nodiscard]] std::size_t width(std::size_t e) const { return stored_.width(stored_of_[e]); }
  [[nodiscard]] static std::size_t saved_per_row(std::size_t) noexcept { return 0; }
  [[nodiscard]] static std::size_t scratch_per_row(std::size_t) noexcept { return 0; }
  /// Those of the stored expert: what expert e activates. The memory of all is that of stored().
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const { return stored_.parameter_count(stored_of_[e]); }
  [[nodiscard]] double flops_per_row(std::size_t e) const { return stored_.flops_per_row(stored_of_[e]); }
  [[nodiscard]] std::size_t bytes(std::size_t e) const { return stored_.bytes(stored_of_[e]); }

  template <execution_context Context>
  void forward_rows(const Context& ctx, vector_view<const expert_rows<value_type>> rows) const {
    const typename Context::workspace_scope scope(ctx.workspace());
    buffer<expert_rows<value_type>> some(rows.size(), &ctx.workspace());
    const auto& inner = probes::placed(ctx, probes::renumbered{{first_of_.data(), first_of_.size()}});
    std::size_t count = 0;
    const auto add = [&](const expert_rows<value_type>& r) {
      some[count] = r;
      some[count++].expert = stored_of_[r.expert];
    };
    const auto run = [&] {
      if (count != 0)
        stored_.forward_rows(inner, std::as_const(some).view().subview(0, count));
      count = 0;
    };
    if (rows.empty())
      return;
    if (!rows[0].scatters()) { // in any order: the ids of a stored expert in one call each
      for (std::size_t round = 0; round < rounds_; ++round) {
        for (const auto& r : rows)
          if (round_of_[r.expert] == round)
            add(r);
        run();
      }
      return;
    }
    // A token's sum runs in ascending order of ids: the longest pieces in which stored experts ascend, too.
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (i != 0 && rows[i].expert != rows[i - 1].expert &&
          stored_of_[rows[i].expert] <= stored_of_[rows[i - 1].expert])
        run();
      add(rows[i]);
    }
    run();
  }
  template <execution_context Context> void lay_out_forward_rows(const Context& dry, const row_limits& limits) const {
    const typename Context::workspace_scope scope(dry.workspace());
    const buffer<expert_rows<value_type>> some(limits.entries(size()), &dry.workspace());
    stored_.lay_out_forward_rows(dry, limits, limits.scatters);
  }

private:
  expert_set<Bank> stored_;
  std::vector<std::size_t> stored_of_; ///< [N]
  std::vector<std::size_t> round_of_;  ///< [N] how many lower ids have the same stored expert
  std::vector<std::size_t> first_of_;  ///< [stored experts] lowest id
  std::size_t rounds_ = 0;
};

} // namespace hmoe::compress

#include <hmoe/core/macros_on.hpp>
