// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/packed_ffn.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/kept_values.hpp>
#include <hmoe/core/packed_values.hpp>
#include <hmoe/experts/weight_source.hpp>

#include <algorithm>
#include <cstddef>
#include <memory_resource>
#include <utility>
#include <vector>

namespace hmoe::backends::simd_detail {

/// Packed experts as the kernels see them: weights and biases in panels. Which gate they have is behind a virtual
/// function, called once per tile, so that the kernels are compiled for each format and not for each gate as well.
template <class Format, std::size_t Lanes, class Arch> class packed_experts {
public:
  using experts_type = packed_experts;
  using format = Format;
  using arch = Arch;
  using weights_type = packed_ffn<Format, Lanes, Arch>;
  static constexpr std::size_t panel_columns = weights_type::panel_columns;
  static constexpr std::size_t hidden_per_panel = weights_type::hidden_per_panel;

  [[nodiscard]] std::size_t size() const noexcept { return weights_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return weights_.d_model(); }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept { return weights_.width(e); }
  [[nodiscard]] bool has_biases() const noexcept { return has_biases_; }
  /// Memory of expert e, padding of panels included: with widths and d_model that are multiples of a panel it is
  /// 4 (f32) or 2 (bf16, f16) bytes per weight.
  [[nodiscard]] std::size_t bytes(std::size_t e) const noexcept {
    const std::size_t columns = weights_type::in_panels(width(e)) + weights_.out_panels();
    return weights_.bytes(e) + (has_biases_ ? columns * panel_columns * sizeof(float) : 0);
  }

  [[nodiscard]] const weights_type& weights() const noexcept { return weights_; }
  [[nodiscard]] static constexpr packed_layout layout() noexcept { return {Format::name, Lanes, panel_columns}; }
  /// All values where they are; those that nobody else owns, until this bank is gone. hmoe::error for a prefix.
  [[nodiscard]] packed_values values() const {
    require(!weights_.is_part(), "packed experts at smaller widths have no panels of their own: take the values of the "
                                 "bank that they are part of");
    packed_values all{.d_model = d_model(),
                      .widths = {},
                      .panels = weights_.panels(),
                      .has_biases = has_biases_,
                      .in_bias = in_bias_.view(),
                      .out_bias = out_bias_.view(),
                      .owner = weights_.owner()};
    for (std::size_t e = 0; e < size(); ++e)
      all.widths.push_back(width(e));
    return all;
  }
  /// From the sums of a panel to hidden values: out[r][i], rows `step` floats apart.
  void finish_hidden(std::size_t e, std::size_t panel, std::size_t rows, float* tile, float* out,
                     std::size_t step) const noexcept {
    if (has_biases_)
      add_bias(in_bias_.data() + bias_offsets_[e].in + panel * panel_columns, rows, tile);
    gate_rows(rows, tile, out, step);
  }
  void finish_output(std::size_t e, std::size_t panel, std::size_t rows, float* tile) const noexcept {
    if (has_biases_)
      add_bias(out_bias_.data() + bias_offsets_[e].out + panel * panel_columns, rows, tile);
  }

protected:
  template <experts::weight_source Source>
  packed_experts(const Source& from, std::pmr::memory_resource* memory)
      : weights_(from, memory), has_biases_(from.has_biases()) {
    if (!has_biases_)
      return;
    const bias_offset sizes = place_biases();
    buffer<float> in_bias(sizes.in, memory), out_bias(sizes.out, memory);
    in_bias.fill(0.0F);
    out_bias.fill(0.0F);
    for (std::size_t e = 0; e < size(); ++e) {
      for (std::size_t i = 0; i < width(e); i += hidden_per_panel)
        for (std::size_t l = 0; l < Lanes; ++l)
          from.read_bias(e, l, i,
                         {in_bias.data() + bias_offsets_[e].in + i * Lanes + l * hidden_per_panel,
                          std::min(hidden_per_panel, width(e) - i), 1});
      from.read_bias(e, Lanes, 0, {out_bias.data() + bias_offsets_[e].out, d_model(), 1});
    }
    in_bias_ = kept_values<float>(std::move(in_bias));
    out_bias_ = kept_values<float>(std::move(out_bias));
  }
  explicit packed_experts(const packed_values& from)
      : weights_(from), has_biases_(from.has_biases), in_bias_(from.in_bias, from.owner),
        out_bias_(from.out_bias, from.owner) {
    const bias_offset sizes = has_biases_ ? place_biases() : bias_offset{0, 0};
    require(in_bias_.size() == sizes.in && out_bias_.size() == sizes.out, "packed experts have ", in_bias_.size(),
            " and ", out_bias_.size(), " values of biases, needed are ", sizes.in, " and ", sizes.out);
  }
  /// Expert i is the first widths[i] hidden values of expert places[i] of `of`, on its memory.
  packed_experts(const packed_experts& of, vector_view<const std::size_t> places, vector_view<const std::size_t> widths)
      : weights_(of.weights_, places, widths), has_biases_(of.has_biases_),
        in_bias_(of.in_bias_.view(), of.weights_.owner()), out_bias_(of.out_bias_.view(), of.weights_.owner()) {
    for (std::size_t i = 0; has_biases_ && i < places.size(); ++i)
      bias_offsets_.push_back(of.bias_offsets_[places[i]]);
  }
  packed_experts(const packed_experts&) = default;
  packed_experts(packed_experts&&) noexcept = default;
  packed_experts& operator=(const packed_experts&) = default;
  packed_experts& operator=(packed_experts&&) noexcept = default;
  ~packed_experts() = default; // nobody owns one as such

private:
  /// Hidden values of the sums in `rows` rows of a tile.
  virtual void gate_rows(std::size_t rows, const float* tile, float* out, std::size_t step) const noexcept = 0;

  static void add_bias(const float* bias, std::size_t rows, float* tile) noexcept {
    for (std::size_t r = 0; r < rows; ++r, tile += panel_columns)
      for (std::size_t c = 0; c < panel_columns; ++c)
        tile[c] += bias[c];
  }

  struct bias_offset {
    std::size_t in, out;
  };
  /// Where the biases of each expert begin; the end of those of all.
  bias_offset place_biases() {
    bias_offset next{0, 0};
    for (std::size_t e = 0; e < size(); ++e) {
      bias_offsets_.push_back(next);
      next.in += weights_type::in_panels(width(e)) * panel_columns;
      next.out += weights_.out_panels() * panel_columns;
    }
    return next;
  }
  weights_type weights_;
  bool has_biases_;
  kept_values<float> in_bias_{buffer<float>()}, out_bias_{buffer<float>()}; ///< in the order of the panels
  std::vector<bias_offset> bias_offsets_;
};

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
