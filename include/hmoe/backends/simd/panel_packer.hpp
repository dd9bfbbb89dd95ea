// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/simd/weight_formats.hpp>
#include <hmoe/core/blocks.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/experts/weight_source.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory_resource>
#include <string_view>

namespace hmoe::backends::simd_detail {

/// A format that is made of blocks of weights, which it can take over as they are.
template <class Format>
concept block_format = requires { typename Format::block_type; };

/// Packs panels of the two projections of an expert (packed_ffn says what is in one) from a weight_source. Holds the
/// floats or the blocks of one panel.
template <class Format, std::size_t Lanes, class Arch> class panel_packer {
  static constexpr std::size_t columns = 2 * formats::detail::lanes<Arch>, hidden = columns / Lanes;

public:
  explicit panel_packer(std::pmr::memory_resource* memory) : floats_(memory), blocks_(memory) {}

  /// Panel p of the first projection of expert e.
  template <experts::weight_source Source>
  void pack_input(const Source& from, std::size_t e, std::size_t p, std::byte* to) {
    const std::size_t first = p * hidden, rows = std::min(hidden, from.width(e) - first);
    pack(from, e, {.first_matrix = 0, .matrices = Lanes, .first_row = first, .rows = rows, .depth = from.d_model()},
         to);
  }
  /// Panel p of the second one.
  template <experts::weight_source Source>
  void pack_output(const Source& from, std::size_t e, std::size_t p, std::byte* to) {
    const std::size_t first = p * columns, rows = std::min(columns, from.d_model() - first);
    pack(from, e, {.first_matrix = Lanes, .matrices = 1, .first_row = first, .rows = rows, .depth = from.width(e)}, to);
  }

private:
  /// Column c of a panel is row first_row + c % (columns / matrices) of matrix first_matrix + c / (columns / matrices).
  struct part {
    std::size_t first_matrix, matrices, first_row, rows, depth;
    [[nodiscard]] std::size_t apart() const noexcept { return columns / matrices; }
  };

  template <class Source> void pack(const Source& from, std::size_t e, const part& some, std::byte* to) {
    if constexpr (block_format<Format>)
      if constexpr (experts::block_weight_source<Source, typename Format::block_type>)
        if (in_blocks(from, e, some))
          return pack_blocks(from, e, some, to);
    floats_.resize_for_overwrite(columns * some.depth);
    for (std::size_t i = 0; i < some.matrices; ++i) {
      const std::size_t m = some.first_matrix + i;
      float* rows = floats_.data() + i * some.apart() * some.depth;
      const matrix_view<float> values(rows, some.rows, some.depth);
      from.read(e, m, some.first_row, values);
      for (std::size_t r = 0; r < some.rows; ++r)
        for (std::size_t k = 0; k < some.depth; ++k)
          check(values(r, k), e, m, some.first_row + r, k);
      std::fill(rows + some.rows * some.depth, rows + some.apart() * some.depth, 0.0F);
    }
    const float* values = floats_.data();
    Format::template pack<Arch>(
        some.depth, [values, &some](std::size_t k, std::size_t c) { return values[c * some.depth + k]; }, to);
  }

  template <class Source> void pack_blocks(const Source& from, std::size_t e, const part& some, std::byte* to) {
    using block_type = typename Format::block_type;
    const std::size_t in_row = blocks_of(some.depth, block_type::size);
    blocks_.resize_for_overwrite(columns * in_row);
    for (std::size_t i = 0; i < some.matrices; ++i) {
      const std::size_t m = some.first_matrix + i;
      block_type* blocks = blocks_.data() + i * some.apart() * in_row;
      from.read_blocks(e, m, some.first_row, some.rows, blocks);
      for (std::size_t r = 0; r < some.rows; ++r)
        for (std::size_t k = 0; k < some.depth; ++k)
          check(blocks[r * in_row + k / block_type::size].value(k % block_type::size), e, m, some.first_row + r, k);
      constexpr float zeros[block_type::size] = {};
      std::fill(blocks + some.rows * in_row, blocks + some.apart() * in_row, block_type::quantize(zeros));
    }
    const block_type* blocks = blocks_.data();
    Format::template pack_blocks<Arch>(
        some.depth, [blocks, in_row](std::size_t b, std::size_t c) { return blocks[c * in_row + b]; }, to);
  }
  template <class Source> [[nodiscard]] static bool in_blocks(const Source& from, std::size_t e, const part& some) {
    bool all = true;
    for (std::size_t i = 0; i < some.matrices && all; ++i)
      all = from.template has_blocks<typename Format::block_type>(e, some.first_matrix + i);
    return all;
  }
  static void check(float weight, std::size_t e, std::size_t m, std::size_t row, std::size_t k) {
    const std::string_view name = m == Lanes ? "down" : m + 1 < Lanes ? "gate" : "up";
    require(std::abs(weight) <= Format::largest_weight, "expert ", e, ": weight (", row, ", ", k, ") of ", name, " is ",
            weight, "; this format holds finite weights up to ", Format::largest_weight);
  }

  template <class F> struct block_of {
    using type = std::byte;
  };
  template <block_format F> struct block_of<F> {
    using type = typename F::block_type;
  };
  buffer<float> floats_;
  buffer<typename block_of<Format>::type> blocks_;
};

} // namespace hmoe::backends::simd_detail

#include <hmoe/core/macros_on.hpp>
