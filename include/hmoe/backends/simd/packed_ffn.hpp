// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/panel_packer.hpp>
#include <hmoe/backends/simd/weight_formats.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/kept_values.hpp>
#include <hmoe/core/packed_values.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/experts/weight_source.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <memory_resource>
#include <span>
#include <utility>
#include <vector>

namespace hmoe::backends::simd_detail {

/// The weights of feed-forward experts of any widths as the kernels read them, held once. Lanes = 2: a panel of the
/// first projection has n gate columns beside the n up columns that belong to them (n: floats in a register), so that
/// gate and up of a hidden value meet in one tile; Lanes = 1: 2·n columns of the only matrix. A panel of the second
/// projection has 2·n output columns. Columns beyond the end are zeros. Packed panel by panel: while that is done there
/// is, beside the result, memory for the floats of one panel. hmoe::error if Format cannot hold a weight.
template <class Format, std::size_t Lanes, class Arch> class packed_ffn {
public:
  static constexpr std::size_t panel_columns = 2 * formats::detail::lanes<Arch>;
  /// Hidden values that a panel of the first projection yields.
  static constexpr std::size_t hidden_per_panel = panel_columns / Lanes;

  template <experts::weight_source Source>
  packed_ffn(const Source& from, std::pmr::memory_resource* memory) : d_model_(from.d_model()) {
    static_assert(Source::lanes == Lanes);
    std::size_t bytes = 0;
    for (std::size_t e = 0; e < from.size(); ++e) {
      const std::size_t h = from.width(e);
      experts_.push_back({h, bytes, bytes + in_panels(h) * in_bytes(), Format::template panel_bytes<Arch>(h)});
      bytes = experts_.back().out + out_panels() * Format::template panel_bytes<Arch>(h);
    }
    buffer<std::byte> packed(bytes, memory);
    panel_packer<Format, Lanes, Arch> packer(memory);
    for (std::size_t e = 0; e < from.size(); ++e) {
      const std::size_t h = from.width(e);
      for (std::size_t p = 0; p < in_panels(h); ++p)
        packer.pack_input(from, e, p, packed.data() + experts_[e].in + p * in_bytes());
      for (std::size_t p = 0; p < out_panels(); ++p)
        packer.pack_output(from, e, p, packed.data() + experts_[e].out + p * Format::template panel_bytes<Arch>(h));
    }
    bytes_ = kept_values<std::byte>(std::move(packed));
  }
  /// Of panels that were packed before. hmoe::error unless they have the size of such experts.
  explicit packed_ffn(const packed_values& from) : d_model_(from.d_model), bytes_(from.panels, from.owner) {
    constexpr std::size_t most = std::size_t{1} << 31; // products of two of them with the bytes of a weight do not wrap
    require(d_model_ >= 1 && d_model_ < most && !from.widths.empty(), "packed experts: there are ", from.widths.size(),
            ", with d_model ", d_model_, ": at least 1 is needed of both, and a d_model below 2^31");
    require(reinterpret_cast<std::uintptr_t>(from.panels.data()) % memory_alignment == 0,
            "the panels of packed experts are not at a multiple of ", memory_alignment, " bytes");
    std::size_t bytes = 0;
    const auto take = [&](std::size_t e, std::size_t panels, std::size_t of_each) {
      require(of_each == 0 || panels <= (bytes_.size() - bytes) / of_each, "packed experts: the panels have ",
              bytes_.size(), " bytes, expert ", e, " needs ", panels, " panels of ", of_each, " from byte ", bytes);
      bytes += panels * of_each;
    };
    for (std::size_t e = 0; e < from.widths.size(); ++e) {
      const std::size_t h = from.widths[e];
      require(h < most, "packed experts: expert ", e, " has width ", h, ", more than 2^31 - 1");
      experts_.push_back({h, bytes, 0, Format::template panel_bytes<Arch>(h)});
      take(e, in_panels(h), in_bytes());
      experts_.back().out = bytes;
      take(e, out_panels(), Format::template panel_bytes<Arch>(h));
    }
    require(bytes == bytes_.size(), "packed experts: the panels have ", bytes_.size(), " bytes, their widths need ",
            bytes);
  }

  /// Expert i is the first widths[i] hidden values of expert places[i] of another object, on its memory, which must
  /// outlive this one and its copies unless it has an owner.
  packed_ffn(const packed_ffn& of, vector_view<const std::size_t> places, vector_view<const std::size_t> widths)
      : d_model_(of.d_model_), bytes_(of.panels(), of.owner()), part_(of.part_ || places.size() != of.size()) {
    constexpr std::size_t multiple = prefix_multiple;
    require(widths.size() == places.size(), widths.size(), " widths for a bank of ", places.size(), " experts");
    for (std::size_t i = 0; i < places.size(); ++i) {
      require(places[i] < of.size(), "expert ", i, " shall be part of expert ", places[i], " of ", of.size());
      const std::size_t h = widths[i], all = of.width(places[i]);
      require(h == all || (h < all && h % multiple == 0), "expert ", i, " shall run at width ", h, ", packed is ", all,
              ": possible are that and smaller multiples of ", multiple);
      experts_.push_back(of.experts_[places[i]]);
      experts_.back().width = h;
      part_ = part_ || h != all || places[i] != i;
    }
  }
  /// Of the widths that such a part may have: whole panels, and whole blocks of weights that share a scale.
  static constexpr std::size_t prefix_multiple = std::max<std::size_t>(hidden_per_panel, Format::encoded_together);

  [[nodiscard]] std::size_t size() const noexcept { return experts_.size(); }
  [[nodiscard]] std::size_t d_model() const noexcept { return d_model_; }
  [[nodiscard]] std::size_t width(std::size_t e) const noexcept { return experts_[e].width; }
  /// Whether widths are smaller than the panels were packed for.
  [[nodiscard]] bool is_part() const noexcept { return part_; }
  /// All panels, expert after expert.
  [[nodiscard]] std::span<const std::byte> panels() const noexcept { return bytes_.view(); }
  [[nodiscard]] const std::shared_ptr<const void>& owner() const noexcept { return bytes_.owner(); }
  /// Memory of all panels.
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_.size(); }
  /// Memory of the weights of expert e.
  [[nodiscard]] std::size_t bytes(std::size_t e) const noexcept {
    return in_panels(width(e)) * in_bytes() + out_panels() * Format::template panel_bytes<Arch>(width(e));
  }

  [[nodiscard]] static std::size_t in_panels(std::size_t width) noexcept {
    return (width + hidden_per_panel - 1) / hidden_per_panel;
  }
  [[nodiscard]] std::size_t out_panels() const noexcept { return (d_model_ + panel_columns - 1) / panel_columns; }
  [[nodiscard]] const std::byte* in_panel(std::size_t e, std::size_t p) const noexcept {
    return bytes_.data() + experts_[e].in + p * in_bytes();
  }
  [[nodiscard]] const std::byte* out_panel(std::size_t e, std::size_t p) const noexcept {
    return bytes_.data() + experts_[e].out + p * experts_[e].apart;
  }
  /// Whether the output panels of expert e follow one another without a gap, as those of its full width do.
  [[nodiscard]] bool out_panels_follow(std::size_t e) const noexcept {
    return experts_[e].apart == Format::template panel_bytes<Arch>(width(e));
  }

private:
  struct place {
    std::size_t width, in, out; ///< in, out: where the panels begin
    std::size_t apart;          ///< bytes from one output panel to the next
  };
  [[nodiscard]] std::size_t in_bytes() const noexcept { return Format::template panel_bytes<Arch>(d_model_); }

  std::size_t d_model_;
  std::vector<place> experts_;
  kept_values<std::byte> bytes_{buffer<std::byte>()};
  bool part_ = false; ///< smaller widths than the panels were packed for
};

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
