// SPDX-License-Identifier: MIT
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/quantized_block.hpp>
#include <hmoe/io/stored_matrix.hpp>
#include <hmoe/io/stored_tensor.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

using hmoe::io::stored_matrix;
using hmoe::io::stored_tensor;
using hmoe::io::tensor_type;

namespace {
template <class V>
stored_tensor tensor(tensor_type type, std::vector<std::size_t> shape, const std::vector<V>& values) {
  return {"a file", "w", type, std::move(shape), std::as_bytes(std::span(values))};
}
std::vector<std::vector<float>> rows_of(const stored_matrix& from, std::size_t first, std::size_t count) {
  hmoe::matrix<float> to(count, from.cols());
  from.read(first, to);
  std::vector<std::vector<float>> rows;
  for (std::size_t r = 0; r < count; ++r)
    rows.emplace_back(to.row(r).begin(), to.row(r).end());
  return rows;
}
using table = std::vector<std::vector<float>>;
const std::vector<float> numbers{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
} // namespace

TEST_CASE("rows of a tensor: all, halves, interleaved ones, of the transposed tensor, and a column of biases") {
  const auto four_by_three = tensor(tensor_type::f32, {4, 3}, numbers);
  const stored_matrix all(four_by_three);
  CHECK(all.rows() == 4);
  CHECK(rows_of(all, 1, 2) == table{{3, 4, 5}, {6, 7, 8}});
  CHECK(rows_of(all, 4, 0).empty());
  CHECK(rows_of(stored_matrix(four_by_three, {2, 1, 2}), 0, 2) == table{{6, 7, 8}, {9, 10, 11}});
  const stored_matrix odd(four_by_three, {1, 2});
  CHECK(odd.rows() == 2);
  CHECK(rows_of(odd, 1, 1) == table{{9, 10, 11}});

  const auto turned = stored_matrix::transposed(four_by_three);
  CHECK(turned.rows() == 3);
  CHECK(rows_of(turned, 1, 2) == table{{1, 4, 7, 10}, {2, 5, 8, 11}});
  CHECK(rows_of(stored_matrix::transposed(tensor(tensor_type::f32, {2, 6}, numbers), {1, 2}), 1, 2) ==
        table{{3, 9}, {5, 11}});
  const auto bias = stored_matrix::column(tensor(tensor_type::f32, {12}, numbers), {1, 2});
  CHECK(bias.rows() == 6);
  CHECK(rows_of(bias, 4, 2) == table{{9}, {11}});

  // More rows than a transposed tensor is read in at a time.
  std::vector<std::uint16_t> many(1400);
  for (std::size_t i = 0; i < many.size(); ++i)
    many[i] = static_cast<std::uint16_t>(i);
  const auto wide = rows_of(stored_matrix::transposed(tensor(tensor_type::u16, {2, 700}, many)), 3, 690);
  for (std::size_t r = 0; r < wide.size(); ++r)
    CHECK(wide[r] == std::vector<float>{static_cast<float>(r + 3), static_cast<float>(r + 703)});
}

TEST_CASE("values with a scale for each block") {
  // E4M3: 0x38 is 1, 0x40 is 2, 0xb8 is -1.
  const std::vector<std::uint8_t> codes{0x38, 0x40, 0xb8, 0x38, 0x38, 0x38, 0x40, 0x40, 0x40};
  const std::vector<float> scales{10, 100, 3, 0.5F};
  const auto scaled = stored_matrix::scaled(tensor(tensor_type::f8_e4m3, {3, 3}, codes),
                                            tensor(tensor_type::f32, {2, 2}, scales), {}, 2);
  CHECK(rows_of(scaled, 0, 3) == table{{10, 20, -100}, {10, 10, 100}, {6, 6, 1}});
  CHECK(!scaled.has_blocks<hmoe::q8_block>());
  CHECK(!scaled.has_blocks<hmoe::fp8_block>()); // their scale is that of 128
  CHECK_THROWS_WITH(static_cast<void>(stored_matrix::scaled(tensor(tensor_type::f8_e4m3, {3, 3}, codes),
                                                            tensor(tensor_type::f32, {2, 2}, scales))),
                    "hmoe: a file: tensor \"w\" is F32 [2, 2], needed is a matrix of 1 x 1");
}

TEST_CASE("E4M3 numbers with a scale for each 128 x 128 are blocks, the last one filled up with zeros") {
  std::vector<std::uint8_t> codes(130 * 200);
  for (std::size_t i = 0; i < codes.size(); ++i)
    codes[i] = static_cast<std::uint8_t>(i * 37 % 127);
  const std::vector<float> scales{2, 3, 5, 7};
  const auto squares = stored_matrix::scaled(tensor(tensor_type::f8_e4m3, {130, 200}, codes),
                                             tensor(tensor_type::f32, {2, 2}, scales), {1, 2});
  REQUIRE(squares.has_blocks<hmoe::fp8_block>());
  std::vector<hmoe::fp8_block> blocks(4);
  squares.read_blocks(63, 2, blocks.data()); // rows 127 and 129 of the file
  const table rows = rows_of(squares, 63, 2);
  for (std::size_t r = 0; r < 2; ++r)
    for (std::size_t k = 0; k < 256; ++k)
      CHECK(blocks[r * 2 + k / 128].value(k % 128) == (k < 200 ? rows[r][k] : 0.0F));
  CHECK(blocks[3].scale() == 7);
  CHECK(
      !stored_matrix::scaled(tensor(tensor_type::f8_e5m2, {130, 200}, codes), tensor(tensor_type::f32, {2, 2}, scales))
           .has_blocks<hmoe::fp8_block>());
}

TEST_CASE("MXFP4 in tensors of bytes: neighbours share a byte, the lower half comes first") {
  std::vector<std::uint8_t> codes(64, 0x22), scales{127, 128, 126, 130}; // code 2 is 1
  codes[0] = 0x71;                                                       // 0.5, then 6
  codes[16 * 3 + 15] = 0xa3;                                             // 1.5, then -1
  const auto matrix =
      stored_matrix::mxfp4(tensor(tensor_type::u8, {2, 2, 16}, codes), tensor(tensor_type::u8, {2, 2}, scales));
  REQUIRE(matrix.rows() == 2);
  REQUIRE(matrix.cols() == 64);
  const table rows = rows_of(matrix, 0, 2);
  CHECK(rows[0][0] == 0.5F);
  CHECK(rows[0][1] == 6);
  CHECK(rows[0][2] == 1);
  CHECK(rows[0][32] == 2);
  CHECK(rows[1][0] == 0.5F);
  CHECK(rows[1][62] == 12);
  CHECK(rows[1][63] == -8);
  REQUIRE(matrix.has_blocks<hmoe::mxfp4_block>());
  CHECK(!matrix.has_blocks<hmoe::q4_block>());
  std::vector<hmoe::mxfp4_block> blocks(2);
  const stored_matrix second = stored_matrix::mxfp4(tensor(tensor_type::u8, {2, 2, 16}, codes),
                                                    tensor(tensor_type::u8, {2, 2}, scales), {1, 1, 1});
  second.read_blocks(0, 1, blocks.data());
  for (std::size_t k = 0; k < 64; ++k)
    CHECK(blocks[k / 32].value(k % 32) == rows[1][k]);
}

TEST_CASE("tensors that do not fit one another, and rows that are not there, are refused") {
  const std::vector<std::uint8_t> bytes(64);
  const auto f32 = tensor(tensor_type::f32, {4, 3}, numbers);
  CHECK_THROWS_WITH(static_cast<void>(stored_matrix(f32, {2, 1, 3})),
                    "hmoe: a file: tensor \"w\" is F32 [4, 3] has 4 rows as a matrix, asked for are 3 from row 2 on, 1 "
                    "apart");
  CHECK_THROWS_AS(static_cast<void>(stored_matrix(f32, {0, 0})), hmoe::error);
  CHECK(stored_matrix(f32, {9, 1}).rows() == 0);
  CHECK_THROWS_AS(static_cast<void>(rows_of(stored_matrix(f32), 3, 2)), hmoe::error);
  hmoe::matrix<float> narrow(1, 2);
  CHECK_THROWS_AS(stored_matrix(f32).read(0, narrow), hmoe::error);
  CHECK_THROWS_AS(static_cast<void>(stored_matrix::transposed(tensor(tensor_type::f4, {4, 2}, bytes))), hmoe::error);
  CHECK_THROWS_AS(static_cast<void>(stored_matrix::mxfp4(tensor(tensor_type::u8, {2, 2, 8}, bytes),
                                                         tensor(tensor_type::u8, {4}, bytes))),
                  hmoe::error);
  CHECK_THROWS_AS(static_cast<void>(stored_matrix::mxfp4(tensor(tensor_type::u8, {2, 2, 16}, bytes),
                                                         tensor(tensor_type::u8, {3}, bytes))),
                  hmoe::error);
  std::vector<hmoe::q8_block> blocks(4);
  CHECK_THROWS_AS(stored_matrix(f32).read_blocks(0, 1, blocks.data()), hmoe::error);
}
