// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/carver.hpp>
#include <hmoe/backends/cuda/context.hpp>
#include <hmoe/backends/cuda/device_weight.hpp>
#include <hmoe/backends/cuda/ffn_arrays.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/overlap.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

namespace hmoe::backends {

/// Where the tensors of two-layer experts lie in memory of others, expert behind expert and without padding:
///   in        Σ lanes · h_e rows of d values: of each expert the rows of its gate, then those of up (two lanes), or up
///   out       for each expert a matrix [d × h_e]
///   in_bias   Σ lanes · h_e values, out_bias [experts × d], where there are biases
/// Where all widths are h these are [experts, lanes · h, d] and [experts, d, h]. A width may be 0. Kernels read the
/// offsets from a table on the device, which the caller copies there once.
class experts_layout {
public:
  experts_layout(std::size_t d_model, std::span<const std::size_t> widths, std::size_t lanes)
      : d_(d_model), lanes_(lanes), widths_(widths.begin(), widths.end()) {
    require(d_ >= 1 && !widths_.empty(), "experts of d_model ", d_, " and ", widths_.size(),
            " widths: there must be some");
    require(lanes_ == 1 || lanes_ == 2, "experts with ", lanes_, " lanes: a GLU has 2, an MLP 1");
    for (const std::size_t h : widths_) {
      hidden_ += h;
      widest_ = std::max(widest_, h);
    }
    require(lanes_ * widest_ < no_index && d_ < no_index && widths_.size() < no_index, widths_.size(),
            " experts up to the width ", widest_, " with d_model ", d_, " are too large for 32-bit sizes");
  }

  [[nodiscard]] std::size_t size() const noexcept { return widths_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return d_; }
  [[nodiscard]] std::size_t lanes() const noexcept { return lanes_; }
  [[nodiscard]] std::size_t widest() const noexcept { return widest_; }
  [[nodiscard]] std::span<const std::size_t> widths() const noexcept { return widths_; }
  /// Values of each tensor.
  [[nodiscard]] std::size_t in_size() const noexcept { return lanes_ * hidden_ * d_; }
  [[nodiscard]] std::size_t out_size() const noexcept { return hidden_ * d_; }
  [[nodiscard]] std::size_t in_bias_size() const noexcept { return lanes_ * hidden_; }
  [[nodiscard]] std::size_t out_bias_size() const noexcept { return size() * d_; }

  /// What is to be copied to the device, to an address aligned to 256 bytes.
  [[nodiscard]] std::vector<std::byte> table() const {
    std::vector<std::byte> bytes(lay_out(nullptr).bytes);
    const arrays to = lay_out(bytes.data());
    std::size_t before = 0;
    for (std::size_t e = 0; e < size(); ++e) {
      to.in[e] = lanes_ * before * d_;
      to.out[e] = before * d_;
      to.in_bias[e] = lanes_ * before;
      to.widths[e] = static_cast<index_t>(widths_[e]);
      before += widths_[e];
    }
    return bytes;
  }

  // What passes ask for.
  struct arrays {
    std::size_t *in, *out, *in_bias; ///< [experts] offsets
    index_t* widths;                 ///< [experts], also what is between rows of `out`
    std::size_t bytes;
  };
  [[nodiscard]] arrays lay_out(std::byte* table) const noexcept {
    cuda_detail::carver memory(table);
    arrays result{};
    result.in = memory.take<std::size_t>(size());
    result.out = memory.take<std::size_t>(size());
    result.in_bias = memory.take<std::size_t>(size());
    result.widths = memory.take<index_t>(size());
    result.bytes = memory.used();
    return result;
  }

private:
  std::size_t d_, lanes_, hidden_ = 0, widest_ = 0;
  std::vector<std::size_t> widths_;
};

/// What a router of any kind chose for T tokens, K choices for each. An id that is no expert (negative, or the number
/// of experts and above) is skipped; a token that names an expert twice gets it with the sum of both weights.
struct device_choices {
  matrix_view<const std::int64_t, device_space> ids; ///< [T × K]
  matrix_view<const float, device_space> weights;    ///< [T × K]
};

/// Two-layer experts on the device, with the weights where others have them and the choices of another router:
///   y_t = Σ_i weights(t, i) · expert_{ids(t, i)}(x_t)
/// and its gradients. Lanes = 2: Gate models hmoe::gating; Lanes = 1: Gate has value(z) and derivative(z), as an
/// hmoe::activation. S: float, bfloat16 or half; sums are in float. All memory is the caller's: the object holds
/// addresses, and is cheap to make. Kernels come from one .cu file, which includes hmoe/backends/cuda/experts_pass.cuh
/// and has `template class hmoe::backends::cuda_experts<2, hmoe::bfloat16, Gate>;`. Passes only queue work, and
/// allocate nothing once the workspace of the context is large enough.
template <std::size_t Lanes, class S, class Gate> class cuda_experts {
  static_assert(Lanes == 1 || Lanes == 2, "hmoe::backends::cuda_experts: Lanes is 2 for GLUs and 1 for MLPs");
  static_assert(cuda_detail::device_scalar<S>,
                "hmoe::backends::cuda_experts: S must be float, hmoe::bfloat16 or hmoe::half");
  static_assert(
      std::is_trivially_copyable_v<Gate>,
      "hmoe::backends::cuda_experts: Gate is not trivially copyable, so it cannot be an argument of a kernel");

public:
  using input = matrix_view<const S, device_space>;
  using output = matrix_view<S, device_space>;

  /// Tensors in the order of an experts_layout. Biases are null where there are none.
  struct weights_type {
    const S *in, *out;
    const float *in_bias = nullptr, *out_bias = nullptr;
  };
  /// The same for gradients, which passes add to. Those that are null are not computed.
  struct gradients_type {
    float *in = nullptr, *out = nullptr, *in_bias = nullptr, *out_bias = nullptr;
  };
  /// What a forward pass leaves for the backward pass, at addresses aligned to 16 bytes. Of hidden layers backward
  /// reads the values before the activation; it writes the rest and `outputs`, and may run again.
  struct kept_type {
    S* hidden = nullptr;      ///< hidden_values(T, K)
    float* outputs = nullptr; ///< [T · K × d], rows that both passes add up: not read between passes, so that several
                              ///< layers may share this memory
  };

  /// `table`: layout.table() on the device.
  cuda_experts(const experts_layout& layout, const std::byte* table, const weights_type& weights, Gate gate = {})
      : layout_(&layout), arrays_(layout.lay_out(const_cast<std::byte*>(table))), weights_(weights), gate_(gate) {
    require(layout.lanes() == Lanes, "the layout is of experts with ", layout.lanes(), " lanes, needed are ", Lanes);
    cuda_detail::require_aligned(table, cuda_detail::device_alignment, "the table of a layout");
    require(weights.in_bias == nullptr ? weights.out_bias == nullptr || layout.in_bias_size() == 0
                                       : weights.out_bias != nullptr,
            "biases of one projection only: give both, zeros where there are none");
    if constexpr (requires { gate_.validate(); })
      gate_.validate();
  }
  /// A layout that does not outlive the experts.
  cuda_experts(experts_layout&&, const std::byte*, const weights_type&, Gate = {}) = delete;

  [[nodiscard]] const experts_layout& layout() const noexcept { return *layout_; }

  /// Values of S that a forward pass keeps of hidden layers.
  [[nodiscard]] static std::size_t hidden_values(const experts_layout& layout, std::size_t tokens,
                                                 std::size_t choices) noexcept {
    return tokens * choices * (Lanes + 1) * hidden_stride(layout);
  }
  /// Bytes of workspace for a forward pass that keeps nothing, one that keeps, and a backward pass.
  [[nodiscard]] static std::size_t forward_bytes(const experts_layout& layout, std::size_t tokens, std::size_t choices,
                                                 bool keeps);
  [[nodiscard]] static std::size_t backward_bytes(const experts_layout& layout, std::size_t tokens,
                                                  std::size_t choices);

  /// y from x [T × d]; y must not overlap x. A token without an expert gets 0.
  void forward(const cuda_context& ctx, input x, const device_choices& chosen, output y) const {
    run_forward(ctx, x, chosen, y, {});
  }
  /// The same bits, and what backward needs is kept.
  void forward(const cuda_context& ctx, input x, const device_choices& chosen, output y, const kept_type& kept) const {
    require_kept(x.rows(), chosen, kept);
    run_forward(ctx, x, chosen, y, kept);
  }
  /// From dy = ∂L/∂y, x and choices of the forward pass and what it kept: dx = ∂L/∂x, d_weights = ∂L/∂weights [T × K]
  /// (0 at choices that are skipped), gradients += ∂L/∂(tensors of experts). dx must not overlap dy.
  void backward(const cuda_context& ctx, input x, const device_choices& chosen, input dy, const kept_type& kept,
                output dx, matrix_view<float, device_space> d_weights, const gradients_type& gradients) const;

private:
  [[nodiscard]] static std::size_t hidden_stride(const experts_layout& layout) noexcept {
    return cuda_detail::ffn_hidden_stride<S>(layout.widest());
  }
  void require_kept(std::size_t tokens, const device_choices& chosen, const kept_type& kept) const {
    const std::size_t values = hidden_values(*layout_, tokens, chosen.ids.cols());
    require(tokens * chosen.ids.cols() == 0 || (kept.outputs != nullptr && (values == 0 || kept.hidden != nullptr)),
            "what a forward pass keeps needs memory for ", values, " hidden values and ", tokens * chosen.ids.cols(),
            " outputs");
    cuda_detail::require_aligned(kept.hidden, 16, "the hidden values that are kept");
    cuda_detail::require_aligned(kept.outputs, 16, "the outputs that are kept");
  }
  void check(input x, const device_choices& chosen, matrix_view<const S, device_space> other,
             std::string_view name) const {
    const std::size_t d = layout_->d_model();
    require(x.cols() == d, "a token has ", x.cols(), " values, the experts' d_model is ", d);
    require(other.rows() == x.rows() && other.cols() == d, name, " is ", other.rows(), " x ", other.cols(),
            ", needed is ", x.rows(), " x ", d);
    require(chosen.ids.rows() == x.rows(), "there are ids for ", chosen.ids.rows(), " tokens, x has ", x.rows());
    require(chosen.weights.rows() == chosen.ids.rows() && chosen.weights.cols() == chosen.ids.cols(), "weights are ",
            chosen.weights.rows(), " x ", chosen.weights.cols(), ", ids ", chosen.ids.rows(), " x ", chosen.ids.cols());
    require(x.rows() < no_index && x.rows() * chosen.ids.cols() < no_index, x.rows(), " tokens with ",
            chosen.ids.cols(), " choices are too many for 32-bit entries");
  }

  // Defined in experts_pass.cuh.
  void run_forward(const cuda_context& ctx, input x, const device_choices& chosen, output y,
                   const kept_type& kept) const;
  [[nodiscard]] cuda_detail::ffn_arrays<S> arrays() const noexcept;

  const experts_layout* layout_;
  experts_layout::arrays arrays_;
  weights_type weights_;
  Gate gate_;
};

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
