// SPDX-License-Identifier: MIT
#include <hmoe/core/matrix.hpp>
#include <hmoe/io/models/tensor_part.hpp>

#include "support/error_of.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

using hmoe::matrix;
using hmoe::io::stored_tensor;
using hmoe::io::tensor_type;
using hmoe::io::models::tensor_part;
using hmoe::io::models::weight_tensor;

namespace {
/// Tensors in memory, as a file has them.
class tensors_in_memory {
public:
  template <class Value>
  void add(const std::string& name, tensor_type type, std::vector<std::size_t> shape,
           const std::vector<Value>& values) {
    std::vector<std::byte>& bytes = bytes_.emplace_back();
    bytes.resize(values.size() * sizeof(Value));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    tensors_.emplace_back("f", name, type, std::move(shape), bytes);
  }
  [[nodiscard]] const stored_tensor* find(std::string_view name) const {
    for (const stored_tensor& tensor : tensors_)
      if (tensor.name() == name)
        return &tensor;
    return nullptr;
  }

private:
  std::deque<std::vector<std::byte>> bytes_;
  std::vector<stored_tensor> tensors_;
};
std::vector<float> read_part(const weight_tensor& tensor, const tensor_part& part, std::size_t rows, std::size_t cols) {
  matrix<float> to(rows, cols);
  tensor.matrix(part).read(0, to.view());
  return {to.data(), to.data() + to.size()};
}
std::string tensor_refusal(const tensors_in_memory& file, const std::string& name,
                           const std::vector<std::size_t>& shape) {
  return support::error_of([&] { weight_tensor(file, name, shape); });
}
} // namespace

TEST_CASE("parts of a tensor: an expert's, rows one above the other or in turns, transposed") {
  tensors_in_memory file;
  std::vector<float> values; // [2 x 4 x 3]: value = 100 expert + 10 row + column
  for (int e = 0; e < 2; ++e)
    for (int r = 0; r < 4; ++r)
      for (int c = 0; c < 3; ++c)
        values.push_back(static_cast<float>(100 * e + 10 * r + c));
  file.add("w", tensor_type::f32, {2, 4, 3}, values);
  const weight_tensor w(file, "w", {2, 4, 3});
  REQUIRE(w.found());
  CHECK_FALSE(weight_tensor(file, "v", {2, 4, 3}).found());
  const tensor_part part{.name = "w", .part = 1, .parts = 2};
  tensor_part below = part, odd = part, turned = part, turned_odd = part;
  below.rows.first = 2;
  odd.rows = {.first = 1, .step = 2};
  turned.transposed = turned_odd.transposed = true;
  turned_odd.rows.first = 1;
  CHECK(read_part(w, below, 2, 3) == std::vector<float>{120, 121, 122, 130, 131, 132});
  CHECK(read_part(w, odd, 2, 3) == std::vector<float>{110, 111, 112, 130, 131, 132});
  CHECK(read_part(w, turned, 3, 4) == std::vector<float>{100, 110, 120, 130, 101, 111, 121, 131, 102, 112, 122, 132});
  CHECK(read_part(w, turned_odd, 2, 4) == std::vector<float>{101, 111, 121, 131, 102, 112, 122, 132});
}

TEST_CASE("MXFP4 as gpt-oss ships it: the lower half of a byte first, a power of two for 32 values") {
  tensors_in_memory file;
  std::vector<std::uint8_t> codes(std::size_t{2} * 2 * 16, 0x22); // 1.0 everywhere
  codes[0] = 0xf1;                                                // 0.5, -6
  codes[16] = 0x07;                                               // 6, 0
  file.add("w_blocks", tensor_type::u8, {2, 2, 16}, codes);
  file.add("w_scales", tensor_type::u8, {2, 2}, std::vector<std::uint8_t>{128, 126, 127, 120});
  const weight_tensor w(file, "w", {2, 64});
  CHECK(w.names() == std::vector<std::string>{"w_blocks", "w_scales"});
  const std::vector<float> all = read_part(w, {.name = "w"}, 2, 64);
  CHECK(all[0] == 1);
  CHECK(all[1] == -12);
  CHECK(all[2] == 2);
  CHECK(all[32] == 3);
  CHECK(all[33] == 0);
  CHECK(all[34] == 0.5F);
  CHECK(all[64] == 1);
  CHECK(all[127] == 0x1p-7F);
  CHECK(tensor_refusal(file, "w", {2, 32}) ==
        "hmoe: f: tensor \"w_scales\" is U8 [2, 2], needed is U8 [2, 1] or another type of that kind");
  CHECK(tensor_refusal(file, "w", {2, 63}) == "hmoe: f: tensor \"w_blocks\" holds rows of 63 values in blocks of 32");
  tensors_in_memory lone;
  lone.add("w_blocks", tensor_type::u8, {2, 2, 16}, codes);
  CHECK(tensor_refusal(lone, "w", {2, 64}) == "hmoe: f has the tensor \"w_blocks\" and lacks \"w_scales\"");
}

TEST_CASE("FP8 as DeepSeek-V3 ships it: a factor for each square of 128 x 128") {
  tensors_in_memory file;
  file.add("w", tensor_type::f8_e4m3, {130, 129}, std::vector<std::uint8_t>(std::size_t{130} * 129, 0x38)); // 1.0
  file.add("w_scale_inv", tensor_type::f32, {2, 2}, std::vector<float>{2, 3, 5, 7});
  const std::vector<float> all = read_part(weight_tensor(file, "w", {130, 129}), {.name = "w"}, 130, 129);
  CHECK(all[0] == 2);
  CHECK(all[std::size_t{127} * 129 + 127] == 2);
  CHECK(all[std::size_t{127} * 129 + 128] == 3);
  CHECK(all[std::size_t{128} * 129] == 5);
  CHECK(all[std::size_t{129} * 129 + 128] == 7);
  CHECK(support::error_of([&] {
          static_cast<void>(weight_tensor(file, "w", {130, 129}).matrix({.name = "w", .transposed = true}));
        }) == "hmoe: f: tensor \"w\" has scales, and the matrix is transposed: that is read of tensors without scales "
              "only");
  tensors_in_memory wrong;
  wrong.add("w", tensor_type::f8_e4m3, {130, 129}, std::vector<std::uint8_t>(std::size_t{130} * 129, 0x38));
  CHECK(tensor_refusal(wrong, "w", {130, 129}) ==
        "hmoe: f: tensor \"w\" is F8_E4M3 [130, 129], needed is F32 [130, 129] or another type of that kind");
  wrong.add("w_scale_inv", tensor_type::f32, {2, 1}, std::vector<float>{2, 3});
  CHECK(tensor_refusal(wrong, "w", {130, 129}) ==
        "hmoe: f: tensor \"w_scale_inv\" is F32 [2, 1], needed is F32 [2, 2]");
}
