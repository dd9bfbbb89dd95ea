// SPDX-License-Identifier: MIT
// From the choices of tokens to the rows of experts.
#pragma once

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/plan.hpp>
#include <hmoe/dispatch/build_plan.hpp>

#include "../passes.hpp"

#include <algorithm>
#include <memory_resource>

namespace hmoe::python {

/// The assignment of a batch, ids ascending within a token, and its plan. Where a token names an expert twice the
/// weights are added: the entry is one, and both choices have its gradient.
template <class T> class batch_rows {
public:
  batch_rows(const batch& in, std::size_t experts, std::pmr::memory_resource* memory)
      : assigned_(memory), plan_(memory), entry_(in.tokens * in.choices, memory) {
    require(in.tokens < no_index && in.tokens * in.choices < no_index, in.tokens, " tokens with ", in.choices,
            " experts each are too many for 32-bit indices: give smaller batches");
    const auto* weights = static_cast<const T*>(in.weights);
    buffer<index_t> order(in.choices, memory);
    assigned_.resize_tokens(in.tokens);
    const auto valid = [&](std::size_t choice) {
      return in.ids[choice] >= 0 && static_cast<std::uint64_t>(in.ids[choice]) < experts;
    };
    // f(choice, first of its expert) in ascending order of ids.
    const auto for_each_choice = [&](std::size_t t, const auto& f) {
      std::size_t count = 0;
      for (std::size_t i = 0; i < in.choices; ++i)
        if (valid(t * in.choices + i))
          order[count++] = static_cast<index_t>(t * in.choices + i);
      std::sort(order.data(), order.data() + count,
                [&](index_t a, index_t b) { return in.ids[a] != in.ids[b] ? in.ids[a] < in.ids[b] : a < b; });
      for (std::size_t i = 0; i < count; ++i)
        f(order[i], i == 0 || in.ids[order[i]] != in.ids[order[i - 1]]);
    };
    for (std::size_t t = 0; t < in.tokens; ++t)
      for_each_choice(t, [&](index_t, bool first) { assigned_.offsets()[t + 1] += first ? 1 : 0; });
    assigned_.sum_counts();
    assigned_.resize_entries();
    entry_.fill(no_index);
    for (std::size_t t = 0; t < in.tokens; ++t) {
      index_t next = assigned_.offsets()[t];
      for_each_choice(t, [&](index_t choice, bool first) {
        if (first) {
          assigned_.experts()[next] = static_cast<index_t>(in.ids[choice]);
          assigned_.weights()[next] = weights[choice];
          ++next;
        } else {
          assigned_.weights()[next - 1] += weights[choice];
        }
        entry_[choice] = next - 1;
      });
    }
    dispatch::build_plan(assigned_, experts, plan_);
  }

  [[nodiscard]] const hmoe::plan& plan() const noexcept { return plan_; }
  [[nodiscard]] const assignment<T>& assigned() const noexcept { return assigned_; }
  /// The entry of a choice (t · choices + i), or no_index for one that is skipped.
  [[nodiscard]] index_t entry(std::size_t choice) const noexcept { return entry_.data()[choice]; }

  /// The scattering rows of expert e.
  [[nodiscard]] expert_rows<T> rows_of(std::size_t e) const noexcept {
    const std::size_t first = plan_.offsets()[e], count = plan_.rows_of(e);
    expert_rows<T> rows;
    rows.expert = e;
    rows.count = count;
    rows.tokens = plan_.tokens().subview(first, count);
    rows.entries = plan_.entries().subview(first, count);
    rows.weights = assigned_.weights();
    return rows;
  }

private:
  assignment<T> assigned_;
  hmoe::plan plan_;
  buffer<index_t> entry_;
};

} // namespace hmoe::python
