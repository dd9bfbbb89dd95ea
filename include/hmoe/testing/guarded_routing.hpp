// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/testing/guarded_memory.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace hmoe::testing {

/// Values of an array's memory that lie behind its end and must stay as they are.
template <class V> class guarded_tail {
public:
  /// The values first[used] … first[room − 1].
  guarded_tail(V* first, std::size_t used, std::size_t room) : first_(first + used), count_(room - used) {
    std::fill_n(first_, count_, mark);
  }
  [[nodiscard]] bool intact() const noexcept {
    return std::all_of(first_, first_ + count_, [](V value) { return value == mark; });
  }

private:
  static constexpr V mark = static_cast<V>(1357924);
  V* first_;
  std::size_t count_;
};

/// What a router fills, in memory that has room for two tokens more, which must stay as it is: so a write behind the
/// last token is found, in a batch of no tokens too. Logits, probabilities and saved values start out as NaN, sinks as
/// 0.
template <class T> class guarded_routing {
public:
  guarded_routing(std::size_t tokens, std::size_t experts, std::size_t saved_per_token, std::size_t max_selected,
                  bool with_sinks = true)
      : trace_(&memory_), assigned_(&memory_) {
    const std::size_t room = tokens + 2;
    trace_.resize(room, experts + 1, saved_per_token + 1, with_sinks);
    trace_.resize(tokens, experts, saved_per_token, with_sinks);
    for (const matrix_view<T> view : {trace_.logits(), trace_.probabilities()}) {
      std::fill_n(view.data(), view.size(), std::numeric_limits<T>::quiet_NaN());
      tails_.emplace_back(view.data(), view.size(), room * (experts + 1));
    }
    for (const matrix_view<T> view : {trace_.d_logits(), trace_.d_probabilities()})
      if (with_sinks)
        tails_.emplace_back(view.data(), view.size(), room * (experts + 1));
    tails_.emplace_back(trace_.score_saved().data(), trace_.score_saved().size(), room * (saved_per_token + 1));
    if (with_sinks)
      tails_.emplace_back(trace_.d_score_saved().data(), trace_.d_score_saved().size(), room * (saved_per_token + 1));
    counts_.emplace_back(trace_.tokens_per_expert().data(), experts, experts + 1);
    entries_ = room * max_selected + 1;
    assigned_.reserve(room, entries_);
    ids_ = assigned_.experts().data();
    weights_ = assigned_.weights().data();
    mark_entries();
    counts_.emplace_back(assigned_.offsets().data(), tokens + 1, room + 1);
  }
  guarded_routing(const guarded_routing&) = delete;
  guarded_routing& operator=(const guarded_routing&) = delete;
  ~guarded_routing() = default;

  [[nodiscard]] router_trace<T>& trace() noexcept { return trace_; }
  [[nodiscard]] const router_trace<T>& trace() const noexcept { return trace_; }
  [[nodiscard]] hmoe::assignment<T>& assigned() noexcept { return assigned_; }
  [[nodiscard]] const hmoe::assignment<T>& assigned() const noexcept { return assigned_; }

  /// Takes the present entries for those of the batch: the memory behind them must stay as it is from now on.
  void mark_entries() {
    std::fill_n(ids_ + assigned_.size(), entries_ - assigned_.size(), no_index - 1);
    std::fill_n(weights_ + assigned_.size(), entries_ - assigned_.size(), std::numeric_limits<T>::quiet_NaN());
  }
  /// Whether nobody wrote outside of trace and assignment.
  [[nodiscard]] bool intact() const noexcept {
    const auto whole = [](const auto& tail) { return tail.intact(); };
    if (!memory_.intact() || !std::ranges::all_of(tails_, whole) || !std::ranges::all_of(counts_, whole))
      return false;
    if (assigned_.experts().data() != ids_ || assigned_.weights().data() != weights_)
      return true; // more entries than announced, in memory of their own
    for (std::size_t a = assigned_.size(); a < entries_; ++a)
      if (ids_[a] != no_index - 1 || !std::isnan(weights_[a]))
        return false;
    return true;
  }

private:
  guarded_memory memory_;
  router_trace<T> trace_;
  hmoe::assignment<T> assigned_;
  std::vector<guarded_tail<T>> tails_;
  std::vector<guarded_tail<index_t>> counts_;
  std::size_t entries_ = 0;
  index_t* ids_ = nullptr;
  T* weights_ = nullptr;
};

} // namespace hmoe::testing

#include <hmoe/core/macros_on.hpp>
