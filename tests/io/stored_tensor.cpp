// SPDX-License-Identifier: MIT
#include <hmoe/core/matrix.hpp>
#include <hmoe/io/stored_tensor.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

using hmoe::io::stored_tensor;
using hmoe::io::tensor_type;

namespace {
const std::vector<float> values{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
stored_tensor tensor_of(std::vector<std::size_t> shape) {
  return {"the file", "w", tensor_type::f32, std::move(shape), std::as_bytes(std::span(values))};
}
} // namespace

TEST_CASE("a tensor as a matrix, and its parts") {
  const stored_tensor stack = tensor_of({2, 2, 3});
  CHECK(stack.rows() == 4);
  CHECK(stack.cols() == 3);
  CHECK(stack.description() == "F32 [2, 2, 3]");
  const auto all = stack.view<float>();
  CHECK(all.data() == values.data());
  CHECK(all(3, 1) == 10);
  const stored_tensor second = stack.slice(1);
  CHECK(second.description() == "F32 [2, 3]");
  CHECK(second.view<float>()(0, 0) == 6);
  CHECK(tensor_of({12}).view<float>().rows() == 1);
  CHECK(tensor_of({12}).slice(7).view<float>()(0, 0) == 7);
  CHECK_THROWS_WITH(static_cast<void>(stack.slice(2)),
                    "hmoe: the file: tensor \"w\" has no part 2: it is F32 [2, 2, 3]");
  CHECK(stored_tensor("f", "s", tensor_type::f64, {}, std::as_bytes(std::span(values)).first(8)).size() == 1);
  CHECK(stored_tensor("f", "e", tensor_type::f32, {3, 0}, {}).view<float>().rows() == 3);

  const std::vector<std::uint8_t> codes{0x21, 0x43, 0x65};
  const stored_tensor packed("f", "p", tensor_type::f4, {3, 2}, std::as_bytes(std::span(codes)));
  hmoe::matrix<float> row(1, 2);
  packed.slice(2).read(row.view());
  CHECK(row(0, 0) == 3); // code 5
  CHECK(row(0, 1) == 4);
  CHECK_THROWS_WITH(static_cast<void>(stored_tensor("f", "p", tensor_type::f4, {2, 3}, packed.bytes()).slice(1)),
                    "hmoe: f: tensor \"p\": a part of 3 values of F4 does not fill blocks of 2");
}

TEST_CASE("a view needs the type and an address that it can have") {
  std::vector<std::byte> bytes(13);
  std::memcpy(bytes.data() + 1, values.data() + 1, 12);
  const stored_tensor odd("the file", "w", tensor_type::f32, {1, 3}, std::span(bytes).subspan(1));
  CHECK_FALSE(odd.viewable<float>());
  CHECK_THROWS_WITH(static_cast<void>(odd.view<float>()), "hmoe: the file: tensor \"w\" lies 1 bytes behind an address "
                                                          "that a F32 can have: copy it by read()");
  CHECK_THROWS_WITH(static_cast<void>(odd.view<double>()),
                    "hmoe: the file: tensor \"w\" is F32 [1, 3], a view needs F64: copy it by read()");
  hmoe::matrix<double> copy(1, 3);
  odd.read(copy.view());
  CHECK(copy(0, 2) == 3);
}

TEST_CASE("a copy has the shape of the tensor, or nothing is written") {
  const stored_tensor tensor = tensor_of({3, 4});
  hmoe::matrix<float> wide(3, 6);
  const hmoe::matrix_view<float> middle = wide.view().column_block(1, 4);
  tensor.read(middle);
  CHECK(wide(0, 0) == 0);
  CHECK(wide(2, 1) == 8);
  CHECK(wide(2, 4) == 11);
  CHECK(wide(1, 5) == 0);
  wide(0, 1) = -1;
  CHECK_THROWS_WITH(tensor.read(wide.view()),
                    "hmoe: the file: tensor \"w\" is F32 [3, 4], needed is a matrix of 3 x 6");
  CHECK(wide(0, 1) == -1);
  const std::vector<std::uint8_t> codes{0x21, 0x43, 0x65};
  const stored_tensor packed("f", "p", tensor_type::f4, {2, 3}, std::as_bytes(std::span(codes)));
  CHECK_THROWS_AS(packed.read(wide.view().row_block(0, 2).column_block(0, 3)), hmoe::error);
}
