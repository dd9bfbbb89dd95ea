// SPDX-License-Identifier: MIT
#include <hmoe/core/matrix.hpp>
#include <hmoe/io/safetensors.hpp>
#include <hmoe/io/safetensors_writer.hpp>

#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

using hmoe::io::safetensors_writer;
using hmoe::io::tensor_type;

TEST_CASE("the file does not depend on the order of adding, and wide types come first") {
  const support::scratch_folder folder;
  const std::string path = (folder / "f").string(), other = (folder / "g").string();
  hmoe::matrix<float> matrix(2, 3);
  matrix(0, 0) = 1;
  matrix(0, 1) = 2;
  matrix(1, 0) = 3;
  matrix(1, 1) = 4;
  const hmoe::matrix_view<const float> left = matrix.view().column_block(0, 2); // rows lie apart
  const std::vector<std::uint8_t> bytes{7, 8, 9};
  const std::vector<double> wide{0.5};
  const auto add = [&](safetensors_writer& writer, int which) {
    if (which == 0)
      writer.add<float>("w\n", left);
    if (which == 1)
      writer.add("c", tensor_type::f4, {2, 3}, std::as_bytes(std::span(bytes)));
    if (which == 2)
      writer.add<double>("d", hmoe::matrix_view<const double>(wide.data(), 1, 1), {});
    if (which == 3)
      writer.add<float>("a", hmoe::matrix_view<const float>(matrix.data(), 0, 5));
  };
  safetensors_writer writer, second;
  writer.set_metadata("b", "old");
  writer.set_metadata("b", "2");
  writer.set_metadata("a", "1");
  second.set_metadata("a", "1");
  second.set_metadata("b", "2");
  for (int i = 0; i < 4; ++i) {
    add(writer, i);
    add(second, 3 - i);
  }
  writer.write(path);
  second.write(other);
  const std::string contents = support::contents_of(path);
  CHECK(contents == support::contents_of(other));
  const std::string header = R"({"__metadata__":{"a":"1","b":"2"},"d":{"dtype":"F64","shape":[],"data_offsets":[0,8]},)"
                             R"("a":{"dtype":"F32","shape":[0,5],"data_offsets":[8,8]},)"
                             R"("w\n":{"dtype":"F32","shape":[2,2],"data_offsets":[8,24]},)"
                             R"("c":{"dtype":"F4","shape":[2,3],"data_offsets":[24,27]}})";
  const std::size_t padded = (header.size() + 7) / 8 * 8;
  REQUIRE(contents.size() == 8 + padded + 27);
  CHECK(static_cast<unsigned char>(contents[0]) + 256 * static_cast<unsigned char>(contents[1]) ==
        static_cast<int>(padded));
  CHECK(contents.substr(8, header.size()) == header);
  CHECK(contents.substr(8 + header.size(), padded - header.size()) == std::string(padded - header.size(), ' '));
  CHECK(contents.substr(8 + padded) == std::string("\0\0\0\0\0\0\xe0\x3f\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40"
                                                   "\x07\x08\x09",
                                                   27));
}

TEST_CASE("a file whose tensors begin at a multiple of 64 bytes") {
  const support::scratch_folder folder;
  const std::string path = (folder / "f").string();
  const std::vector<double> wide(8, 0.5), narrow(1, 2);
  for (std::size_t i = 0; i < 64; ++i) {
    safetensors_writer writer;
    writer.set_metadata("text", std::string(i, 'x'));
    writer.add<double>("a", hmoe::matrix_view<const double>(wide.data(), 1, 8));
    writer.add<double>("b", hmoe::matrix_view<const double>(narrow.data(), 1, 1));
    writer.align_to(64);
    writer.write(path);
    const hmoe::io::safetensors_file file(path); // mapped at the beginning of a page
    for (const char* name : {"a", "b"})
      CHECK(reinterpret_cast<std::uintptr_t>(file.at(name).bytes().data()) % 64 == 0);
    CHECK(file.at("b").view<double>()(0, 0) == 2);
  }
  CHECK_THROWS_AS(safetensors_writer().align_to(48), hmoe::error);
}

TEST_CASE("a tensor that is made while it is written") {
  const support::scratch_folder folder;
  const std::vector<std::uint8_t> bytes{0, 1, 2, 10, 11, 12};
  safetensors_writer at_hand, made;
  at_hand.add("w", tensor_type::u8, {2, 3}, std::as_bytes(std::span(bytes)));
  made.add("w", tensor_type::u8, {2, 3}, 2, 3, [](std::size_t row, std::span<std::byte> to) {
    for (std::size_t i = 0; i < to.size(); ++i)
      to[i] = static_cast<std::byte>(10 * row + i);
  });
  at_hand.write((folder / "f").string());
  made.write((folder / "g").string());
  CHECK(support::contents_of(folder / "f") == support::contents_of(folder / "g"));
  CHECK_THROWS_AS(made.add("v", tensor_type::u8, {2, 3}, 2, 2, [](std::size_t, std::span<std::byte>) {}), hmoe::error);
}

TEST_CASE("what does not fit is refused with the numbers") {
  safetensors_writer writer;
  const std::vector<float> values(6);
  const hmoe::matrix_view<const float> view(values.data(), 2, 3);
  const auto bytes = std::as_bytes(std::span(values));
  writer.add<float>("a", view);
  CHECK_THROWS_WITH(writer.add<float>("a", view), "hmoe: tensor \"a\" was added before");
  CHECK_THROWS_WITH(writer.add<float>("b", view, {7}),
                    "hmoe: tensor \"b\" is of 7 values of F32 by its shape, given are 24 bytes");
  CHECK_THROWS_WITH(writer.add("b", tensor_type::f4, {3}, bytes.first(2)),
                    "hmoe: tensor \"b\" is of 3 values of F4 by its shape, given are 2 bytes");
  CHECK_THROWS_WITH(writer.add("b", tensor_type::u8, {std::size_t{1} << 40U, std::size_t{1} << 40U}, bytes),
                    "hmoe: tensor \"b\": its shape has more values than memory can hold");
  CHECK_THROWS_WITH(writer.add("b", tensor_type::q8_0, {0}, {}),
                    "hmoe: tensor \"b\" is of the type Q8_0, which safetensors does not have");
  CHECK_THROWS_WITH(writer.add<float>("__metadata__", view),
                    "hmoe: tensor \"__metadata__\": the format keeps this name for the metadata");
  CHECK_THROWS_WITH(writer.add<float>("\xff", view),
                    "hmoe: tensor \"?\": its name is not UTF-8, which safetensors needs");
  CHECK_THROWS_AS(writer.set_metadata("a", "\xff"), hmoe::error);
}
