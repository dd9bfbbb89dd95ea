// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/workspace.hpp>
#include <hmoe/routing/batch_selection.hpp>
#include <hmoe/routing/score.hpp>
#include <hmoe/routing/score_functions/softmax.hpp>
#include <hmoe/testing/guarded_memory.hpp>
#include <hmoe/testing/guarded_routing.hpp>
#include <hmoe/testing/probes.hpp>
#include <hmoe/testing/report.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace hmoe::testing {

/// What a selection over a whole batch promises. Switch off what yours does not mean to keep.
struct batch_selection_options {
  bool may_choose_none = true;      ///< off: each token must get an expert
  bool treats_experts_alike = true; ///< renumbering the experts renumbers the choice
  bool treats_tokens_alike = true;  ///< reordering the tokens reorders the choice
  /// The loads of two experts differ by at most so much.
  std::size_t load_difference = std::numeric_limits<std::size_t>::max();
  std::size_t vocabulary = 0; ///< of the tokens' ids, for hash selections; 0: no ids
};

namespace detail {

/// A batch of logits, of which all are different or many are equal, and its choice.
template <class T> class batch_sample {
public:
  batch_sample(std::size_t tokens, std::size_t experts, const batch_selection_options& options, bool ties)
      : tokens_(tokens), experts_(experts), logits_(random_values<T>(tokens * experts, 41, 2)) {
    for (std::size_t t = 0; t < tokens && options.vocabulary != 0; ++t)
      ids_.push_back(static_cast<index_t>((7 * t + 3) % options.vocabulary));
    for (T& z : logits_)
      z = ties ? std::round(z) : z;
  }

  /// The last expert first, or the last token first.
  void reverse_experts() {
    for (std::size_t t = 0; t < tokens_; ++t)
      std::reverse(logits_.begin() + at(t), logits_.begin() + at(t + 1));
  }
  void reverse_tokens() {
    reverse_experts();
    std::reverse(logits_.begin(), logits_.end());
    std::reverse(ids_.begin(), ids_.end());
  }

  /// Each token's experts in ascending order; breaks the laws about what a selection may write.
  template <class Selection> std::vector<std::vector<index_t>> choose(const Selection& select, report& found) const {
    std::size_t most = experts_;
    if constexpr (requires { select.max_selected(experts_); })
      most = std::min<std::size_t>(select.max_selected(experts_), experts_);
    guarded_routing<T> routing(tokens_, experts_, 0, most, false);
    router_trace<T>& trace = routing.trace();
    trace.set_inputs({.token_ids = ids_});
    std::copy(logits_.begin(), logits_.end(), trace.logits().data());
    for (std::size_t t = 0; t < tokens_; ++t)
      routing::softmax{}.forward(std::as_const(trace).logits().row(t), trace.probabilities().row(t));
    guarded_array<index_t> slots(tokens_ * most), amounts(tokens_);
    guarded_memory memory;
    select(std::as_const(trace), matrix_view<index_t>(slots.view().data(), tokens_, most), amounts.view(), &memory);
    found.expect(slots.margins_intact() && amounts.margins_intact() && routing.intact(),
                 "writes only into the slots it was given", "memory beside the ", tokens_, " x ", most,
                 " slots or the ", tokens_, " counts changed");
    found.expect(memory.intact(), "writes only into the memory it took", "memory beside its scratch changed");
    if constexpr (requires { select.lay_out(&memory, tokens_, experts_); }) {
      workspace dry{dry_run{}};
      const workspace::scope scope(dry);
      select.lay_out(&dry, tokens_, experts_);
      const std::size_t announced = dry.peak();
      found.expect(memory.peak() <= announced, "lay_out announces enough", "for ", tokens_, " tokens it took ",
                   memory.peak(), " bytes, announced are ", announced);
    }
    std::vector<std::vector<index_t>> result;
    for (std::size_t t = 0; t < tokens_; ++t) {
      const std::size_t count = amounts.view()[t];
      if (!found.expect(count <= most, "chooses at most max_selected experts", "it chose ", count, " for token ", t,
                        ", at most ", most, " are possible"))
        return {};
      const auto choice = slots.view().subview(t * most, count);
      std::vector<index_t> row(choice.begin(), choice.end());
      std::sort(row.begin(), row.end());
      if (!found.expect(row.empty() || row.back() < experts_, "chooses experts that exist", "it chose expert ",
                        row.empty() ? 0 : row.back(), " of ", experts_))
        return {};
      found.expect(std::adjacent_find(row.begin(), row.end()) == row.end(), "chooses no expert twice",
                   "an expert came twice for token ", t);
      result.push_back(row);
    }
    return result;
  }

private:
  [[nodiscard]] std::ptrdiff_t at(std::size_t t) const noexcept { return static_cast<std::ptrdiff_t>(t * experts_); }

  std::size_t tokens_, experts_;
  std::vector<T> logits_;
  std::vector<index_t> ids_;
};

} // namespace detail

/// Checks a selection over a whole batch among N experts, over batches of 0 to 50 tokens with and without ties. What
/// it chooses has no law of its own: that is its subject.
template <class T, batch_selection<T> Selection>
[[nodiscard]] report check_batch_selection(const Selection& select, std::size_t experts,
                                           const batch_selection_options& options = {}) {
  report found;
  found.expect_no_throw("works without an exception", [&] {
    if constexpr (requires { select.validate(experts); })
      select.validate(experts);
    for (const std::size_t tokens : {std::size_t{0}, std::size_t{1}, 2 * experts + 1, std::size_t{50}})
      for (const bool ties : {false, true}) {
        const detail::batch_sample<T> sample(tokens, experts, options, ties);
        const auto chosen = sample.choose(select, found);
        if (chosen.size() != tokens)
          return;
        std::vector<std::size_t> loads(experts);
        for (std::size_t t = 0; t < tokens; ++t) {
          if (!options.may_choose_none)
            found.expect(!chosen[t].empty(), "chooses an expert for each token", "none for token ", t);
          for (const index_t e : chosen[t])
            ++loads[e];
        }
        const auto [least, most] = std::minmax_element(loads.begin(), loads.end());
        found.expect(*most - *least <= options.load_difference, "balances the loads", "of ", tokens,
                     " tokens one expert got ", *least, ", another ", *most);
        found.expect(repeatable([&] {
                       report ignored;
                       std::vector<index_t> all;
                       for (const auto& row : sample.choose(select, ignored)) {
                         all.insert(all.end(), row.begin(), row.end());
                         all.push_back(no_index);
                       }
                       return all;
                     }),
                     "chooses the same every time", "the same batch again, or on another thread, gave another choice");
        if (ties || tokens < 2) // a plan that shares out one token may be indifferent
          continue;
        detail::batch_sample<T> other_experts = sample, other_tokens = sample;
        other_experts.reverse_experts();
        other_tokens.reverse_tokens();
        auto back = other_experts.choose(select, found);
        for (auto& row : back) {
          for (index_t& e : row)
            e = static_cast<index_t>(experts - 1) - e;
          std::reverse(row.begin(), row.end());
        }
        found.expect(!options.treats_experts_alike || back == chosen, "treats experts alike",
                     "renumbering the experts changed who is chosen in a batch of ", tokens);
        back = other_tokens.choose(select, found);
        std::reverse(back.begin(), back.end());
        found.expect(!options.treats_tokens_alike || back == chosen, "treats tokens alike",
                     "reordering the tokens changed who is chosen in a batch of ", tokens);
      }
  });
  return found;
}

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
