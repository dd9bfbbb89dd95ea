// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/carver.hpp>
#include <hmoe/backends/cuda/device_weight.hpp>
#include <hmoe/backends/cuda/ffn_arrays.hpp>
#include <hmoe/backends/cuda/loss_arrays.hpp>
#include <hmoe/backends/cuda/memory.hpp>
#include <hmoe/core/assignment.hpp>
#include <hmoe/core/matrix_view.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace hmoe::backends {

namespace cuda_detail {

/// The sizes of a pass other than tokens and entries.
struct pass_shape {
  std::size_t d, experts, routed;
  std::size_t hidden_stride;                ///< values from one hidden row to the next, 0 without two-layer experts
  bool one_lane, two_lanes, constants, own; ///< which kinds there are
  bool weights_on_input;

  bool operator==(const pass_shape&) const = default;
};

/// Losses that a tape has room for.
inline constexpr std::size_t most_losses = 32;

/// Floats that rows of d values by slot may take in a workspace, in one piece where it must be so.
[[nodiscard]] inline std::size_t row_floats(bool whole, std::size_t most) noexcept {
  return whole ? std::numeric_limits<std::size_t>::max() : most;
}

/// Rows by slot that only a forward pass itself reads: always in the workspace.
template <class S> struct forward_rows {
  row_pieces pieces; ///< of outputs
  S* scaled;         ///< [entries × d] weight · x, where weights are on the input
  S* activated;      ///< [entries × hidden_stride]
  float* outputs;    ///< [entries × columns of a piece]

  [[nodiscard]] static forward_rows take(carver& memory, const pass_shape& shape, std::size_t entries,
                                         std::size_t most_floats) noexcept {
    const std::size_t most = row_floats(shape.own, most_floats);
    forward_rows rows{row_pieces(entries, shape.d, most), nullptr, nullptr, nullptr};
    if (shape.weights_on_input)
      rows.scaled = memory.take<S>(entries * shape.d);
    if (shape.hidden_stride != 0)
      rows.activated = memory.take<S>(entries * shape.hidden_stride);
    rows.outputs = memory.take<float>(row_pieces::floats(entries, shape.d, most));
    return rows;
  }
};

/// ∂L/∂… of a backward pass, in the workspace.
template <class S> struct backward_arrays {
  row_pieces pieces; ///< of d_rows: one where weights are on the input, whose gradients are ⟨x, d_rows⟩
  float* d_weights;  ///< [entries] of gate weights
  float* d_rows;     ///< [entries × columns of a piece] of what experts read
  float* base;       ///< [tokens × d] of x, by the router
  S* scaled;         ///< [entries × d] weight · x where weights are on the input, weight · dy for experts of a user
  S* activated;      ///< [entries × hidden_stride] weight · activated
  S* d_projected[2]; ///< [entries × Lanes·hidden_stride] by Lanes − 1
  float* dots;       ///< [entries × dot_parts]; null where weights are on the input

  [[nodiscard]] static backward_arrays take(carver& memory, const pass_shape& shape, std::size_t tokens,
                                            std::size_t entries, std::size_t most_floats) noexcept {
    const std::size_t most = row_floats(shape.own || shape.weights_on_input, most_floats);
    backward_arrays back{};
    back.pieces = row_pieces(entries, shape.d, most);
    back.d_weights = memory.take<float>(entries);
    back.d_rows = memory.take<float>(row_pieces::floats(entries, shape.d, most));
    back.base = memory.take<float>(tokens * shape.d);
    if (shape.weights_on_input || shape.own)
      back.scaled = memory.take<S>(entries * shape.d);
    if (shape.one_lane)
      back.d_projected[0] = memory.take<S>(entries * shape.hidden_stride);
    if (shape.two_lanes)
      back.d_projected[1] = memory.take<S>(entries * 2 * shape.hidden_stride);
    if (shape.hidden_stride == 0)
      return back;
    back.activated = memory.take<S>(entries * shape.hidden_stride);
    if (!shape.weights_on_input)
      back.dots = memory.take<float>(entries * dot_parts(shape.hidden_stride));
    return back;
  }
};

/// The arrays of a forward pass, in the workspace (inference) or in a tape, where backward finds them.
template <class S> struct pass_arrays {
  trace_arrays trace;
  assignment_arrays assigned;
  plan_arrays plan;
  S* projected[2]; ///< [capacity × Lanes·hidden_stride] by Lanes − 1; in a tape only
  float* mixes;    ///< [capacity × 3] of constant experts: a, b, ∂L/∂logit of a
  S* input;        ///< [tokens × input_stride]; in a tape only
  double* losses;  ///< [most_losses]; in a tape only

  /// Rows of the input are padded to 16 bytes.
  [[nodiscard]] static std::size_t input_stride(std::size_t d) noexcept { return row_elements<S>(d); }

  [[nodiscard]] static pass_arrays take(carver& memory, const pass_shape& shape, std::size_t tokens,
                                        std::size_t entries, bool recording) noexcept {
    pass_arrays arrays{};
    const auto some = [&]<class T>(bool wanted, T*& array, std::size_t count) {
      if (wanted)
        array = memory.take<T>(count);
    };
    auto& trace = arrays.trace;
    trace.tokens = static_cast<index_t>(tokens);
    trace.experts = static_cast<index_t>(shape.routed);
    some(true, trace.logits, tokens * shape.routed);
    some(true, trace.probabilities, tokens * shape.routed);
    some(recording, trace.d_logits, tokens * shape.routed);
    some(recording, trace.d_probabilities, tokens * shape.routed);
    some(true, trace.tokens_per_expert, shape.routed);
    auto& assigned = arrays.assigned;
    assigned.tokens = static_cast<index_t>(tokens);
    assigned.capacity = static_cast<index_t>(entries);
    some(true, assigned.offsets, tokens + 1);
    some(true, assigned.experts, entries);
    some(true, assigned.weights, entries);
    auto& plan = arrays.plan;
    plan.experts = static_cast<index_t>(shape.experts);
    plan.capacity = static_cast<index_t>(entries);
    some(true, plan.offsets, shape.experts + 1);
    some(true, plan.tokens, entries);
    some(true, plan.entries, entries);
    some(true, plan.slots, entries);
    some(recording && shape.one_lane, arrays.projected[0], entries * shape.hidden_stride);
    some(recording && shape.two_lanes, arrays.projected[1], entries * 2 * shape.hidden_stride);
    some(shape.constants, arrays.mixes, entries * 3);
    some(recording, arrays.input, tokens * input_stride(shape.d));
    some(recording, arrays.losses, most_losses);
    return arrays;
  }
};

} // namespace cuda_detail

/// What a forward pass on the device saved for its backward pass: made by cuda_layer::make_tape, one block of device
/// memory. Losses leave their gradients and values in it.
template <class S> class cuda_tape {
public:
  /// On the current device.
  cuda_tape(const cuda_detail::pass_shape& shape, std::size_t max_tokens, std::size_t max_entries)
      : shape_(shape), max_tokens_(max_tokens), max_entries_(max_entries) {
    block_.resize_for_overwrite(bytes_for(shape, max_tokens, max_entries));
    lay_out();
  }
  /// In somebody else's memory, which must outlive the tape.
  cuda_tape(const cuda_detail::pass_shape& shape, std::size_t max_tokens, std::size_t max_entries,
            device_buffer<std::byte> block)
      : shape_(shape), max_tokens_(max_tokens), max_entries_(max_entries), block_(std::move(block)) {
    const std::size_t bytes = bytes_for(shape, max_tokens, max_entries);
    require(block_.size() >= bytes, "a tape for ", max_tokens, " tokens and ", max_entries, " entries takes ", bytes,
            " bytes, given are ", block_.size());
    cuda_detail::require_aligned(block_.data(), cuda_detail::device_alignment, "the memory of a tape");
    lay_out();
  }
  [[nodiscard]] static std::size_t bytes_for(const cuda_detail::pass_shape& shape, std::size_t max_tokens,
                                             std::size_t max_entries) noexcept {
    cuda_detail::carver count;
    (void)cuda_detail::pass_arrays<S>::take(count, shape, max_tokens, max_entries, true);
    return count.used();
  }

  [[nodiscard]] std::size_t max_tokens() const noexcept { return max_tokens_; }
  [[nodiscard]] std::size_t max_entries() const noexcept { return max_entries_; }
  [[nodiscard]] std::size_t tokens() const noexcept { return arrays_.trace.tokens; }
  [[nodiscard]] std::size_t bytes() const noexcept { return block_.size(); }
  /// Whether a forward pass has been queued that backward can follow.
  [[nodiscard]] bool complete() const noexcept { return complete_; }

  /// [T×N] of the pass, on the device.
  [[nodiscard]] matrix_view<const float, device_space> logits() const noexcept {
    return {arrays_.trace.logits, tokens(), shape_.routed};
  }
  [[nodiscard]] matrix_view<const float, device_space> probabilities() const noexcept {
    return {arrays_.trace.probabilities, tokens(), shape_.routed};
  }
  /// [1×N]: how many tokens each routed expert was given, on the device; of the last pass that was queued.
  [[nodiscard]] matrix_view<const index_t, device_space> tokens_per_expert() const noexcept {
    return {arrays_.trace.tokens_per_expert, 1, shape_.routed};
  }
  /// A host copy of them; waits for the stream.
  [[nodiscard]] std::vector<index_t> read_tokens_per_expert(const executors::cuda_stream& stream) const {
    std::vector<index_t> counts(shape_.routed);
    cuda_detail::require_cuda(cudaMemcpyAsync(counts.data(), arrays_.trace.tokens_per_expert,
                                              counts.size() * sizeof(index_t), cudaMemcpyDeviceToHost, stream.get()),
                              "copying tokens per expert from the device");
    stream.synchronize();
    return counts;
  }
  /// A host copy of the assignment; waits for the stream.
  [[nodiscard]] assignment<float> read_assignment(const executors::cuda_stream& stream) const {
    assignment<float> host;
    host.resize_tokens(tokens());
    const auto read = [&](auto to, const auto* from) {
      if (to.size() != 0)
        cuda_detail::require_cuda(
            cudaMemcpyAsync(to.data(), from, to.size() * sizeof(*from), cudaMemcpyDeviceToHost, stream.get()),
            "copying an assignment from the device");
      stream.synchronize();
    };
    if (tokens() == 0)
      return host;
    read(host.offsets(), arrays_.assigned.offsets);
    host.resize_entries();
    read(host.experts(), arrays_.assigned.experts);
    read(host.weights(), arrays_.assigned.weights);
    return host;
  }

  /// Tells losses that look at sequences (losses::sequence_balance) where those of the next passes begin: offsets
  /// [S+1], which start at 0, ascend, and end at the number of tokens. Empty: a batch is one sequence, as it is at
  /// first. Before a pass is captured, not within.
  void set_sequences(const executors::cuda_stream& stream, std::span<const index_t> offsets) {
    require(offsets.empty() || (offsets.size() >= 2 && offsets[0] == 0),
            "the sequences of a batch need offsets that start at 0 and end at the number of tokens, given are ",
            offsets.size(), " offsets");
    index_t filled = 0;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
      require(offsets[s] <= offsets[s + 1], "sequence ", s, " ends at token ", offsets[s + 1], " before it begins at ",
              offsets[s]);
      filled += offsets[s] < offsets[s + 1] ? 1 : 0;
    }
    sequences_.assign(stream, offsets);
    sequences_with_tokens_ = filled;
    sequence_tokens_ = offsets.empty() ? 0 : offsets.back();
  }

  // What the layer asks for.
  [[nodiscard]] cuda_detail::routed_batch_arrays routing(const index_t* widths, index_t widest) const noexcept {
    const std::size_t offsets = sequences_.size();
    return {arrays_.trace,
            arrays_.assigned,
            arrays_.plan,
            widths,
            widest,
            offsets == 0 ? nullptr : sequences_.data(),
            static_cast<index_t>(offsets == 0 ? 0 : offsets - 1),
            sequences_with_tokens_,
            sequence_tokens_};
  }
  [[nodiscard]] const cuda_detail::pass_shape& shape() const noexcept { return shape_; }
  [[nodiscard]] const cuda_detail::pass_arrays<S>& arrays() const noexcept { return arrays_; }
  void begin(std::size_t tokens) noexcept {
    complete_ = false;
    arrays_.trace.tokens = arrays_.assigned.tokens = static_cast<index_t>(tokens);
  }
  void set_complete() noexcept { complete_ = true; }

private:
  void lay_out() {
    cuda_detail::carver memory(block_.data());
    arrays_ = cuda_detail::pass_arrays<S>::take(memory, shape_, max_tokens_, max_entries_, true);
    arrays_.trace.tokens = arrays_.assigned.tokens = 0;
  }

  cuda_detail::pass_shape shape_;
  std::size_t max_tokens_, max_entries_;
  cuda_detail::pass_arrays<S> arrays_{};
  device_buffer<std::byte> block_;
  device_buffer<index_t> sequences_; ///< [S + 1], or empty
  index_t sequences_with_tokens_ = 0, sequence_tokens_ = 0;
  bool complete_ = false;
};

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
