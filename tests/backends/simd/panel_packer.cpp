// SPDX-License-Identifier: MIT
// Packing from files, whose experts have other types and orders than a bank in memory.
#include <hmoe/backends/simd.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/io/stored_experts.hpp>
#include <hmoe/io/stored_matrix.hpp>
#include <hmoe/io/stored_tensor.hpp>

#include "support/counting_resource.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory_resource>
#include <span>
#include <utility>
#include <vector>

using namespace hmoe;
using io::stored_matrix;
using io::tensor_type;
namespace formats = backends::formats;
using backends::simd;

namespace {
using bank_type = experts::glu_bank<float, experts::silu>;
using source_type = io::stored_experts<2>;

/// Bytes of tensors, and three experts in them, of widths 33, 40 and 64: fused, transposed and interleaved gate and up
/// in 16 bits; fused ones of 8 bits with a scale for 16 × 16; MXFP4 in two tensors beside blocks of a GGUF file.
class experts_in_files {
public:
  static constexpr std::size_t d = 64;

  experts_in_files() {
    support::random_source random(5);
    const auto bf16 = [&](std::size_t count) {
      return bytes_of(count, [&] { return bfloat16(static_cast<float>(random.real(-1, 1))); });
    };
    const auto codes = [&](std::size_t count, unsigned low, unsigned high) {
      return bytes_of(count, [&] { return static_cast<std::uint8_t>(random.size(low, high)); });
    };
    const auto f32 = [&](std::size_t count) {
      return bytes_of(count, [&] { return static_cast<float>(random.real(-1, 1)); });
    };
    const auto fused = tensor(tensor_type::bf16, {d, 66}, bf16(d * 66));
    const auto fused_bias = tensor(tensor_type::bf16, {66}, bf16(66));
    experts_.push_back({{stored_matrix::transposed(fused, {0, 2}), stored_matrix::transposed(fused, {1, 2}),
                         stored_matrix::transposed(tensor(tensor_type::bf16, {33, d}, bf16(33 * d)))},
                        {stored_matrix::column(fused_bias, {0, 2}), stored_matrix::column(fused_bias, {1, 2}),
                         stored_matrix::column(tensor(tensor_type::f32, {d}, f32(d)))}});
    const auto eight = tensor(tensor_type::f8_e4m3, {80, d}, codes(80 * d, 0, 0x77));
    const auto scales = tensor(tensor_type::f32, {5, 4}, f32(20));
    experts_.push_back(
        {{stored_matrix::scaled(eight, scales, {0, 1, 40}, 16), stored_matrix::scaled(eight, scales, {40, 1, 40}, 16),
          stored_matrix(tensor(tensor_type::f32, {d, 40}, f32(d * 40)))}});
    const auto four = tensor(tensor_type::u8, {128, 2, 16}, codes(4096, 0, 255));
    exponents = data_.size();
    const auto powers = tensor(tensor_type::u8, {128, 2}, codes(256, 120, 130));
    std::vector<std::byte> blocks(d * 2 * 34);
    for (std::size_t b = 0; b < d * 2; ++b) {
      const half scale(static_cast<float>(b % 5 + 1) / 64); // few bits, so that products with it are exact
      std::memcpy(&blocks[b * 34], &scale, 2);
      for (std::size_t i = 0; i < 32; ++i) // the largest code is often not 127
        blocks[b * 34 + 2 + i] = static_cast<std::byte>(random.size(0, b % 2 == 0 ? 255 : 90));
    }
    experts_.push_back({{stored_matrix::mxfp4(four, powers, {0, 2}), stored_matrix::mxfp4(four, powers, {1, 2}),
                         stored_matrix(tensor(tensor_type::q8_0, {d, 64}, std::move(blocks)))}});
  }

  [[nodiscard]] source_type source() const { return {d, experts_}; }
  std::size_t exponents = 0;
  [[nodiscard]] std::vector<std::byte>& data(std::size_t i) { return data_[i]; }

private:
  template <class F> static std::vector<std::byte> bytes_of(std::size_t count, F next) {
    std::vector<std::byte> bytes;
    for (std::size_t i = 0; i < count; ++i) {
      const auto value = next();
      const auto of_value = std::as_bytes(std::span(&value, 1));
      bytes.insert(bytes.end(), of_value.begin(), of_value.end());
    }
    return bytes;
  }
  io::stored_tensor tensor(tensor_type type, std::vector<std::size_t> shape, std::vector<std::byte> bytes) {
    data_.push_back(std::move(bytes)); // the bytes themselves stay where they are
    return {"a file", "w", type, std::move(shape), data_.back()};
  }

  std::vector<std::vector<std::byte>> data_;
  std::vector<io::stored_expert<2>> experts_;
};

bank_type in_memory(const source_type& from) {
  bank_type bank(from.d_model(), {from.width(0), from.width(1), from.width(2)}, experts::biases::all);
  auto& weights = bank.weights();
  for (std::size_t e = 0; e < 3; ++e)
    for (std::size_t m = 0; m < 3; ++m) {
      const matrix_view<float> to = m < 2 ? weights.lane(e, m) : weights.output(e),
                               bias = m < 2 ? weights.lane_bias(e, m) : weights.output_bias(e);
      from.read(e, m, 0, to);
      from.read_bias(e, m, 0, {bias.data(), bias.cols(), 1});
    }
  return bank;
}

/// Weight (k, column) of a panel, times `value`: what a row that is that at k and else 0 makes of it.
template <class Format>
std::vector<float> column_sums(const std::byte* panel, std::size_t depth, std::size_t k, float value = 127) {
  using arch = xsimd::default_arch;
  constexpr std::size_t columns = 2 * formats::detail::lanes<arch>;
  std::vector<float> row(depth);
  row[k] = value;
  buffer<typename Format::row_value> encoded(Format::row_length(depth));
  std::memset(static_cast<void*>(encoded.data()), 0, encoded.size() * sizeof(typename Format::row_value));
  Format::template encode<arch>(row.data(), depth, encoded.data());
  buffer<float> tile(columns);
  Format::template multiply<1, 1, arch>(depth, encoded.data(), encoded.size(), panel, {panel, 1}, tile.data());
  return {tile.begin(), tile.end()};
}
} // namespace

TEST_CASE_TEMPLATE("experts packed from files are those packed from memory", Format, formats::f32, formats::bf16,
                   formats::fp8, formats::q8, formats::q8_channel, formats::q4, formats::mxfp4) {
  const experts_in_files files;
  const source_type source = files.source();
  const auto packed = simd<>::pack<Format>(source, experts::silu{});
  const auto expected = simd<>::pack<Format>(in_memory(source));
  static_assert(std::is_same_v<decltype(packed), decltype(expected)>);
  constexpr std::size_t columns = packed.panel_columns, hidden = packed.hidden_per_panel;
  const auto same_panel = [](const std::byte* a, const std::byte* b, std::size_t depth) {
    return std::memcmp(a, b, Format::template panel_bytes<xsimd::default_arch>(depth)) == 0;
  };
  for (std::size_t e = 0; e < 3; ++e) {
    REQUIRE(packed.width(e) == source.width(e));
    for (std::size_t p = 0; p < packed.weights().in_panels(packed.width(e)); ++p) {
      // Blocks that are taken over may have other codes for the same values.
      if (!(e == 2 && std::is_same_v<Format, formats::mxfp4>))
        CHECK(same_panel(packed.weights().in_panel(e, p), expected.weights().in_panel(e, p), files.d));
      std::array<float, columns> tile{}, ours{}, theirs{};
      packed.finish_hidden(e, p, 1, tile.data(), ours.data(), hidden);
      tile = {};
      expected.finish_hidden(e, p, 1, tile.data(), theirs.data(), hidden);
      CHECK(ours == theirs);
    }
    for (std::size_t p = 0; p < packed.weights().out_panels(); ++p) {
      if (!(e == 2 && std::is_same_v<Format, formats::q8>))
        CHECK(same_panel(packed.weights().out_panel(e, p), expected.weights().out_panel(e, p), packed.width(e)));
      std::array<float, columns> ours{}, theirs{};
      packed.finish_output(e, p, 1, ours.data());
      expected.finish_output(e, p, 1, theirs.data());
      CHECK(ours == theirs);
    }
  }
}

TEST_CASE("blocks that a format has are taken over: the values are those of the file, bit for bit") {
  const experts_in_files files;
  const source_type source = files.source();
  matrix<float> values(64, 64);
  const auto four = simd<>::pack<formats::mxfp4>(source, experts::silu{});
  constexpr std::size_t columns = four.panel_columns, hidden = four.hidden_per_panel;
  for (std::size_t m = 0; m < 2; ++m) {
    source.read(2, m, 0, values);
    for (std::size_t p = 0; p * hidden < 64; ++p)
      for (std::size_t k = 0; k < 64; ++k) {
        const auto sums = column_sums<formats::mxfp4>(four.weights().in_panel(2, p), 64, k);
        for (std::size_t i = 0; i < hidden; ++i)
          REQUIRE(sums[m * hidden + i] == 127 * values(p * hidden + i, k));
      }
  }
  const auto eight = simd<>::pack<formats::q8>(source, experts::silu{});
  source.read(2, 2, 0, values);
  for (std::size_t p = 0; p * columns < 64; ++p)
    for (std::size_t k = 0; k < 64; ++k) {
      const auto sums = column_sums<formats::q8>(eight.weights().out_panel(2, p), 64, k);
      for (std::size_t c = 0; c < columns; ++c)
        REQUIRE(sums[c] == 127 * values(p * columns + c, k));
    }
}

TEST_CASE(
    "E4M3 numbers with a scale for each square of 128 are taken over by fp8, rows and columns that fill none, too") {
  constexpr std::size_t width = 136, depth = 160;
  support::random_source random(7);
  std::vector<std::uint8_t> codes(width * depth);
  for (std::uint8_t& code : codes) // never 448, so that no other scale would do
    code = static_cast<std::uint8_t>(random.size(0, 0x70) + 128 * random.size(0, 1));
  std::vector<float> scales(4);
  for (float& scale : scales)
    scale = static_cast<float>(random.real(0.5, 2));
  const auto matrix_of = [&](std::size_t rows) {
    return stored_matrix::scaled(
        {"a file", "w", tensor_type::f8_e4m3, {rows, width + depth - rows}, std::as_bytes(std::span(codes))},
        {"a file", "s", tensor_type::f32, {2, 2}, std::as_bytes(std::span(scales))});
  };
  const io::stored_experts<1> source(depth, {{{matrix_of(width), matrix_of(depth)}}});
  const auto packed = simd<>::pack<formats::fp8>(source, experts::silu{});
  constexpr std::size_t columns = packed.panel_columns;
  for (std::size_t m = 0; m < 2; ++m) {
    const std::size_t rows = m == 0 ? width : depth, cols = width + depth - rows;
    matrix<float> values(rows, cols);
    source.read(0, m, 0, values);
    for (std::size_t p = 0; p * columns < rows; ++p)
      for (std::size_t k = 0; k < cols; ++k) {
        const std::byte* panel = m == 0 ? packed.weights().in_panel(0, p) : packed.weights().out_panel(0, p);
        const auto sums = column_sums<formats::fp8>(panel, cols, k, 1.0F);
        for (std::size_t c = 0; c < std::min(columns, rows - p * columns); ++c)
          REQUIRE(sums[c] == values(p * columns + c, k));
      }
  }
}

TEST_CASE("a weight of a file that a format cannot hold is refused by expert and place") {
  experts_in_files files;
  files.data(files.exponents)[2 * (2 * 9 + 1) + 1] = std::byte{0xff}; // of up's row 9, columns 32 to 63: NaN
  CHECK_THROWS_WITH(static_cast<void>(simd<>::pack<formats::mxfp4>(files.source(), experts::silu{})),
                    doctest::Contains("hmoe: expert 2: weight (9, 32) of up is "));
  CHECK_THROWS_WITH(static_cast<void>(simd<>::pack<formats::f32>(files.source(), experts::silu{})),
                    doctest::Contains("hmoe: expert 2: weight (9, 32) of up is "));
  CHECK_THROWS_AS(static_cast<void>(simd<>::pack(experts_in_files().source(), experts::gpt_oss_gate{.limit = -1})),
                  hmoe::error);
}

TEST_CASE("packing needs memory for the floats of one panel beside the result") {
  const std::vector<std::size_t> widths{500, 300, 200, 400};
  constexpr std::size_t d = 256;
  std::vector<bfloat16> values(500 * d);
  support::random_source random(6);
  for (bfloat16& value : values)
    value = bfloat16(static_cast<float>(random.real(-1, 1)));
  std::vector<io::stored_expert<2>> experts;
  for (const std::size_t h : widths) {
    const auto tensor = [&](std::size_t rows, std::size_t cols) {
      return stored_matrix({"a file", "w", tensor_type::bf16, {rows, cols}, std::as_bytes(std::span(values))});
    };
    experts.push_back({{tensor(h, d), tensor(h, d), tensor(d, h)}});
  }
  const source_type source(d, std::move(experts));
  const auto check = [&]<class Format>(const Format&) {
    support::counting_resource memory;
    std::pmr::memory_resource* before = std::pmr::set_default_resource(&memory);
    std::size_t bytes = 0, panel = 0, allowed = 0;
    {
      const auto packed = simd<>::pack<Format>(source, experts::silu{}, &memory);
      for (std::size_t e = 0; e < packed.size(); ++e)
        bytes += packed.bytes(e);
      panel = packed.panel_columns * 500 * sizeof(float);
      allowed = 2 * panel + 1024; // a smaller panel's memory lives until a larger one's is there
      CHECK(memory.live_bytes <= bytes + 1024);
    }
    std::pmr::set_default_resource(before);
    CHECK(memory.peak_bytes >= bytes + panel);
    CHECK(memory.peak_bytes <= bytes + allowed);
    CHECK(allowed < 3 * d * 200 * sizeof(float)); // less than the floats of the smallest expert
    CHECK(memory.live == 0);
  };
  check(formats::bf16{});
  check(formats::q4{});
  check(formats::mxfp4{});
}
