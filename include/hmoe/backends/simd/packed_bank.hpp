// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd/activations.hpp>
#include <hmoe/backends/simd/packed_ffn.hpp>
#include <hmoe/backends/simd/packed_forward.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/bank.hpp>
#include <hmoe/experts/elementwise.hpp>
#include <hmoe/experts/ffn_weights.hpp>

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe::backends {

namespace simd_detail {
// Base of simd<Arch>. simd itself cannot be declared ahead: where hmoe.hpp has declared its stand-in (absent::simd),
// clang does not join such a declaration with the definition.
template <class Arch> struct row_operations;
} // namespace simd_detail

/// The inference form of a bank of feed-forward experts: weights in panels for the registers of Arch, stored as Format
/// says, held once. Computes in float, each sum in ascending k: a token's output has the same bits in any batch, on
/// any number of threads and by any dropless dispatch. Made by simd<Arch>::pack; runs in a context with
/// backends::simd<Arch>, as part of an expert_set; has no backward pass.
/// Lanes = 2: W_o a(W_g x + b_g, W_p x + b_p) + b_o with Gate's a(g, u); Lanes = 1: W_o a(W_i x + b_i) + b_o with the
/// activation Gate.
template <class Format, class Gate, std::size_t Lanes, class Arch = xsimd::default_arch> class packed_bank {
public:
  using value_type = float;
  using format = Format;
  using arch = Arch;
  using weights_type = simd_detail::packed_ffn<Format, Lanes, Arch>;

  packed_bank(const experts::ffn_weights<float, Lanes>& from, Gate gate)
      : weights_(from), gate_(std::move(gate)), has_biases_(from.has_biases()) {
    if (!has_biases_)
      return;
    std::size_t in = 0, out = 0;
    for (std::size_t e = 0; e < size(); ++e) {
      bias_offsets_.push_back({in, out});
      in += weights_type::in_panels(width(e)) * panel_columns;
      out += weights_.out_panels() * panel_columns;
    }
    in_bias_.resize_for_overwrite(in);
    in_bias_.fill(0.0F);
    out_bias_.resize_for_overwrite(out);
    out_bias_.fill(0.0F);
    for (std::size_t e = 0; e < size(); ++e) {
      for (std::size_t l = 0; l < Lanes; ++l)
        for (std::size_t i = 0; i < width(e); ++i)
          in_bias_[bias_offsets_[e].in + i / hidden_per_panel * panel_columns + l * hidden_per_panel +
                   i % hidden_per_panel] = from.lane_bias(e, l)(0, i);
      std::ranges::copy(from.output_bias(e).row(0), out_bias_.data() + bias_offsets_[e].out);
    }
  }

  [[nodiscard]] std::size_t size() const noexcept { return weights_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return weights_.d_model(); }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept { return weights_.width(e); }
  [[nodiscard]] bool has_biases() const noexcept { return has_biases_; }
  [[nodiscard]] static std::size_t saved_per_row(std::size_t) noexcept { return 0; }
  [[nodiscard]] static std::size_t scratch_per_row(std::size_t) noexcept { return 0; }
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const noexcept {
    return (Lanes + 1) * d_model() * width(e) + (has_biases_ ? Lanes * width(e) + d_model() : 0);
  }
  [[nodiscard]] double flops_per_row(std::size_t e) const noexcept {
    return 2.0 * static_cast<double>((Lanes + 1) * d_model() * width(e));
  }
  /// Memory of expert e, padding of panels included: with widths and d_model that are multiples of a panel it is
  /// 4 (f32) or 2 (bf16, f16) bytes per weight.
  [[nodiscard]] std::size_t bytes(std::size_t e) const noexcept {
    const std::size_t columns = weights_type::in_panels(width(e)) + weights_.out_panels();
    return weights_.bytes(e) + (has_biases_ ? columns * panel_columns * sizeof(float) : 0);
  }

  template <execution_context Context>
  void forward_rows(const Context& ctx, vector_view<const expert_rows<float>> rows) const {
    static_assert(std::derived_from<std::remove_cvref_t<decltype(ctx.backend())>, simd_detail::row_operations<Arch>>,
                  "hmoe: the weights of a packed_bank are laid out for backends::simd: run them in a "
                  "context{backends::simd{}, ...} with the same Arch");
    simd_detail::packed_forward<packed_bank>::run(ctx, *this, rows);
  }
  /// Takes from a dry workspace what forward_rows takes at most for rows within the limits.
  template <execution_context Context> void lay_out_forward_rows(const Context& dry, const row_limits& limits) const {
    simd_detail::packed_forward<packed_bank>::lay_out(dry, *this, limits);
  }

  // What the kernels ask for.
  [[nodiscard]] const weights_type& weights() const noexcept { return weights_; }
  /// From the sums of a panel to hidden values: out[r][i], rows `step` floats apart.
  [[gnu::flatten]] void finish_hidden(std::size_t e, std::size_t panel, std::size_t rows, float* tile, float* out,
                                      std::size_t step) const noexcept {
    if (has_biases_)
      add_bias(in_bias_.data() + bias_offsets_[e].in + panel * panel_columns, rows, tile);
    using values = vector_view<const float>;
    constexpr simd_detail::activations<Arch> math;
    for (std::size_t r = 0; r < rows; ++r, tile += panel_columns, out += step) {
      const vector_view<float> hidden(out, hidden_per_panel);
      if constexpr (Lanes == 2)
        experts::apply_gate(math, gate_, values(tile, hidden_per_panel),
                            values(tile + hidden_per_panel, hidden_per_panel), hidden);
      else
        experts::activate<Gate>(math, values(tile, hidden_per_panel), hidden);
    }
  }
  void finish_output(std::size_t e, std::size_t panel, std::size_t rows, float* tile) const noexcept {
    if (has_biases_)
      add_bias(out_bias_.data() + bias_offsets_[e].out + panel * panel_columns, rows, tile);
  }

private:
  static constexpr std::size_t panel_columns = weights_type::panel_columns;
  static constexpr std::size_t hidden_per_panel = weights_type::hidden_per_panel;

  static void add_bias(const float* bias, std::size_t rows, float* tile) noexcept {
    for (std::size_t r = 0; r < rows; ++r, tile += panel_columns)
      for (std::size_t c = 0; c < panel_columns; ++c)
        tile[c] += bias[c];
  }

  struct bias_offset {
    std::size_t in, out;
  };
  weights_type weights_;
  [[no_unique_address]] Gate gate_;
  bool has_biases_;
  buffer<float> in_bias_, out_bias_; ///< in the order of the panels
  std::vector<bias_offset> bias_offsets_;
};

} // namespace hmoe::backends
