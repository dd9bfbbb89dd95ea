// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/activations.hpp>
#include <hmoe/backends/simd/packed_experts.hpp>
#include <hmoe/backends/simd/packed_forward.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/core/packed_values.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/elementwise.hpp>
#include <hmoe/experts/weight_source.hpp>

#include <xsimd/xsimd.hpp>

#include <concepts>
#include <cstddef>
#include <memory_resource>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe::backends {

namespace simd_detail {
// Base of simd<Arch>. simd itself cannot be declared ahead: where hmoe.hpp has declared its stand-in (absent::simd),
// clang does not join such a declaration with the definition.
template <class Arch> struct row_operations;

/// Hidden values of `rows` rows of a panel's sums: out[r][i], rows `step` floats apart.
template <std::size_t Lanes, class Arch, class Gate>
[[gnu::flatten]] void gate_rows(const Gate& gate, std::size_t rows, const float* tile, float* out,
                                std::size_t step) noexcept {
  constexpr std::size_t lane = 2 * formats::detail::lanes<Arch> / Lanes;
  using values = vector_view<const float>;
  constexpr activations<Arch> math;
  for (std::size_t r = 0; r < rows; ++r, tile += Lanes * lane, out += step) {
    const vector_view<float> hidden(out, lane);
    if constexpr (Lanes == 2)
      experts::apply_gate(math, gate, values(tile, lane), values(tile + lane, lane), hidden);
    else
      experts::activate<Gate>(math, values(tile, lane), hidden);
  }
}
} // namespace simd_detail

/// The inference form of a bank of feed-forward experts: weights in panels for the registers of Arch, stored as Format
/// says, held once. Computes in float, each sum in ascending k: a token's output has the same bits in any batch, on
/// any number of threads and by any dropless dispatch. Made by simd<Arch>::pack; runs in a context with
/// backends::simd<Arch>, as part of an expert_set; has no backward pass.
/// Lanes = 2: W_o a(W_g x + b_g, W_p x + b_p) + b_o with Gate's a(g, u); Lanes = 1: W_o a(W_i x + b_i) + b_o with the
/// activation Gate.
template <class Format, class Gate, std::size_t Lanes, class Arch = xsimd::default_arch>
class packed_bank final : public simd_detail::packed_experts<Format, Lanes, Arch> {
  using base = simd_detail::packed_experts<Format, Lanes, Arch>;

public:
  using value_type = float;
  using gate_type = Gate;
  static constexpr bool observes_stages = true;

  /// In memory of the given resource.
  template <experts::weight_source Source>
  packed_bank(const Source& from, Gate gate, std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : base(from, memory), gate_(std::move(gate)) {
    if constexpr (requires { gate_.validate(); })
      gate_.validate();
  }

  /// Of values that were packed before, by a bank of the same layout(), where they are. hmoe::error where sizes do not
  /// fit one another.
  packed_bank(const packed_values& from, Gate gate) : base(from), gate_(std::move(gate)) {
    if constexpr (requires { gate_.validate(); })
      gate_.validate();
  }
  /// The bank at smaller widths [size()]: the first neurons of each expert, without a copy of weights. This bank must
  /// outlive the result; copies of the result have the same weights. A width is the expert's, or a smaller multiple of
  /// prefix_multiple (hidden values of a panel, and of the group for formats whose weights share scales); else
  /// hmoe::error. Outputs have the bits of a bank that was packed at these widths, but for q8_channel, whose scales of
  /// output channels are those of the full width, and for fp8, where 128 weights share one that the width may cut.
  [[nodiscard]] packed_bank prefix(vector_view<const std::size_t> widths) const {
    std::vector<std::size_t> all(this->size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    return prefixes({all.data(), all.size()}, widths);
  }
  /// The same with any experts: expert i is the first widths[i] neurons of expert places[i], which may come several
  /// times.
  [[nodiscard]] packed_bank prefixes(vector_view<const std::size_t> places,
                                     vector_view<const std::size_t> widths) const {
    return packed_bank(*this, places, widths);
  }
  static constexpr std::size_t prefix_multiple = base::weights_type::prefix_multiple;

  [[nodiscard]] static std::size_t saved_per_row(std::size_t) noexcept { return 0; }
  [[nodiscard]] static std::size_t scratch_per_row(std::size_t) noexcept { return 0; }
  [[nodiscard]] std::size_t parameter_count(std::size_t e) const noexcept {
    const std::size_t d = this->d_model(), h = this->width(e);
    return (Lanes + 1) * d * h + (this->has_biases() ? Lanes * h + d : 0);
  }
  [[nodiscard]] double flops_per_row(std::size_t e) const noexcept {
    return 2.0 * static_cast<double>((Lanes + 1) * this->d_model() * this->width(e));
  }

  template <execution_context Context>
  void forward_rows(const Context& ctx, vector_view<const expert_rows<float>> rows) const {
    static_assert(std::derived_from<std::remove_cvref_t<decltype(ctx.backend())>, simd_detail::row_operations<Arch>>,
                  "hmoe: the weights of a packed_bank are laid out for backends::simd: run them in a "
                  "context{backends::simd{}, ...} with the same Arch");
    simd_detail::packed_forward<base>::run(ctx, *this, rows);
  }
  /// Takes from a dry workspace what forward_rows takes at most for rows within the limits.
  template <execution_context Context> void lay_out_forward_rows(const Context& dry, const row_limits& limits) const {
    simd_detail::packed_forward<base>::lay_out(dry, *this, limits);
  }

private:
  packed_bank(const packed_bank& of, vector_view<const std::size_t> places, vector_view<const std::size_t> widths)
      : base(of, places, widths), gate_(of.gate_) {}

  void gate_rows(std::size_t rows, const float* tile, float* out, std::size_t step) const noexcept override {
    simd_detail::gate_rows<Lanes, Arch>(gate_, rows, tile, out, step);
  }

  [[no_unique_address]] Gate gate_;
};

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
