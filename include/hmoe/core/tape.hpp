// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/plan.hpp>
#include <hmoe/core/router_trace.hpp>

#include <algorithm>
#include <any>
#include <memory_resource>

namespace hmoe {

/// What a forward pass saved for its backward pass: made by moe_layer::make_tape, written by forward, read by
/// auxiliary losses and by backward. One layer serves many threads, each with a tape of its own.
template <class T> class tape {
public:
  tape() : tape(std::pmr::get_default_resource(), true) {}
  /// A tape that is not recording holds the routing of one inference pass and no activations.
  tape(std::pmr::memory_resource* memory, bool recording)
      : recording_(recording), trace_(memory), assigned_(memory), plan_(memory), input_(memory), expert_output_(memory),
        activations_(memory), activation_offsets_(memory) {}

  [[nodiscard]] bool recording() const noexcept { return recording_; }
  /// Whether a forward pass has been recorded that backward can run on.
  [[nodiscard]] bool complete() const noexcept { return complete_; }
  void set_complete(bool complete) noexcept { complete_ = complete; }
  /// Whether weights scale what experts read instead of what they return.
  [[nodiscard]] bool weights_on_input() const noexcept { return weights_on_input_; }
  void set_weights_on_input(bool on_input) noexcept { weights_on_input_ = on_input; }

  [[nodiscard]] router_trace<T>& trace() noexcept { return trace_; }
  [[nodiscard]] const router_trace<T>& trace() const noexcept { return trace_; }
  [[nodiscard]] hmoe::assignment<T>& assignment() noexcept { return assigned_; }
  [[nodiscard]] const hmoe::assignment<T>& assignment() const noexcept { return assigned_; }
  [[nodiscard]] hmoe::plan& plan() noexcept { return plan_; }
  [[nodiscard]] const hmoe::plan& plan() const noexcept { return plan_; }

  /// [T×d] a copy of the layer's input.
  [[nodiscard]] matrix<T>& input() noexcept { return input_; }
  [[nodiscard]] const matrix<T>& input() const noexcept { return input_; }
  /// [slots×d] what each expert returned, before weighting.
  [[nodiscard]] matrix<T>& expert_output() noexcept { return expert_output_; }
  [[nodiscard]] const matrix<T>& expert_output() const noexcept { return expert_output_; }

  /// What expert e saved: rows × saved_per_row(e) values, laid out expert after expert. `rows(e)` and `saved(e)` are
  /// functions of the expert's id.
  template <class Rows, class Saved> void layout_activations(std::size_t expert_count, Rows rows, Saved saved) {
    activation_offsets_.resize_for_overwrite(expert_count + 1);
    activation_offsets_[0] = 0;
    for (std::size_t e = 0; e < expert_count; ++e)
      activation_offsets_[e + 1] = activation_offsets_[e] + rows(e) * saved(e);
    activations_.resize_for_overwrite(activation_offsets_[expert_count]);
  }
  [[nodiscard]] matrix_view<T> activations(std::size_t expert, std::size_t rows) noexcept {
    const std::size_t begin = activation_offsets_[expert];
    const std::size_t per_row = rows == 0 ? 0 : (activation_offsets_[expert + 1] - begin) / rows;
    return {activations_.data() + begin, rows, per_row};
  }

  /// What a strategy keeps between its passes in addition, of a type of its own; made when it is first asked for, and
  /// anew for another type.
  template <class Kept> [[nodiscard]] Kept& kept() {
    if (Kept* there = std::any_cast<Kept>(&kept_))
      return *there;
    return kept_.emplace<Kept>();
  }

  /// Room for the largest batch the tape will see.
  void reserve(std::size_t tokens, std::size_t d_model, std::size_t expert_count, std::size_t score_saved_per_token,
               std::size_t entries, std::size_t slots, std::size_t activation_values) {
    trace_.resize(tokens, expert_count, score_saved_per_token, recording_);
    assigned_.reserve(tokens, entries);
    plan_.reserve(expert_count, std::max(slots, entries), entries);
    input_.resize_for_overwrite(tokens, d_model);
    expert_output_.resize_for_overwrite(slots, d_model);
    activations_.reserve(activation_values);
    activation_offsets_.reserve(expert_count + 1);
  }

private:
  bool recording_, complete_ = false, weights_on_input_ = false;
  router_trace<T> trace_;
  hmoe::assignment<T> assigned_;
  hmoe::plan plan_;
  matrix<T> input_, expert_output_;
  buffer<T> activations_;
  buffer<std::size_t> activation_offsets_;
  std::any kept_;
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
