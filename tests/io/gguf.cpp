// SPDX-License-Identifier: MIT
#include <hmoe/io/gguf.hpp>

#include "support/gguf_bytes.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

using hmoe::io::gguf_file;
using hmoe::io::gguf_type;
using support::bytes_of;
using support::gguf_parts;

namespace {
constexpr std::uint32_t f32 = 0, q4_0 = 2, q8_0 = 8;

gguf_file parse(const std::string& bytes) { return {std::as_bytes(std::span(bytes)), "f"}; }
std::string refused(const std::string& bytes) {
  try {
    static_cast<void>(parse(bytes));
  } catch (const hmoe::error& e) {
    return std::string(e.what()).substr(6);
  }
  return "nothing";
}
/// A file with such a tensor and 64 bytes of data.
std::string refused_tensor(const std::vector<std::uint64_t>& dimensions, std::uint32_t type, std::uint64_t offset) {
  gguf_parts parts;
  parts.add_tensor("a", dimensions, type, offset);
  parts.data = std::string(64, '\x01');
  return refused(parts.bytes());
}
} // namespace

TEST_CASE("versions 2 and 3, tensors row-major, keys in order") {
  for (const std::uint32_t version : {2U, 3U}) {
    gguf_parts parts;
    parts.version = version;
    parts.alignment = 8;
    parts.add_key("z", gguf_type::u8, "\x07");
    parts.add_key("general.alignment", gguf_type::u32, bytes_of(std::uint32_t{8}));
    parts.add_tensor("w", {3, 2}, f32, 8); // rows of 3
    parts.add_tensor("b", {1}, f32, 0);
    for (const float value : {9.0F, 0.0F, 1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F})
      parts.data += bytes_of(value);
    const support::scratch_folder folder;
    support::set_contents(folder / "f.gguf", parts.bytes());
    const gguf_file file((folder / "f.gguf").string());
    CHECK(file.version() == version);
    CHECK(file.alignment() == 8);
    REQUIRE(file.metadata().size() == 2);
    CHECK(file.metadata()[0].first == "general.alignment");
    CHECK(file.metadata("z")->natural("z") == 7);
    CHECK(file.metadata("y") == nullptr);
    REQUIRE(file.tensors().size() == 2);
    CHECK(file.tensors()[0].name() == "b");
    CHECK(file.at("b").view<float>()(0, 0) == 9);
    CHECK(file.at("w").description() == "F32 [2, 3]");
    CHECK(file.at("w").view<float>()(1, 0) == 4);
    CHECK(file.find("c") == nullptr);
    CHECK_THROWS_WITH(static_cast<void>(file.at("c")),
                      ("hmoe: " + file.name() + " has no tensor \"c\"; it has 2 others").c_str());
  }
  CHECK(parse(gguf_parts{}.bytes()).tensors().empty());
  CHECK(refused(gguf_parts{}.bytes().substr(0, 24)) == "nothing"); // without tensors nothing needs to follow
}

TEST_CASE("what is no such file is refused") {
  gguf_parts parts;
  CHECK(refused("GGUF") == "f has 4 bytes, the header of a GGUF file has 24");
  parts.magic = "GGML";
  CHECK(refused(parts.bytes()) == "f is no GGUF file: it does not start with GGUF");
  parts.magic = "GGUF";
  parts.version = 1;
  CHECK(refused(parts.bytes()) == "f is a GGUF file of version 1; this library reads versions 2 and 3");
  parts.version = 4;
  CHECK(refused(parts.bytes()) == "f is a GGUF file of version 4; this library reads versions 2 and 3");
  parts.version = 0x03000000;
  CHECK(refused(parts.bytes()) == "f is a big-endian GGUF file; this library reads little-endian ones");
  parts.version = 3;
  parts.key_count = std::uint64_t{1} << 63U;
  CHECK(refused(parts.bytes()) == "f says that 9223372036854775808 values of 13 bytes follow, it has 8 bytes left");
  parts.key_count = 0;
  parts.tensor_count = std::uint64_t{1} << 63U;
  CHECK(refused(parts.bytes()) == "f says that 9223372036854775808 values of 24 bytes follow, it has 8 bytes left");

  gguf_parts twice;
  twice.add_key("k", gguf_type::u8, "\x01");
  twice.add_key("k", gguf_type::u8, "\x01");
  CHECK(refused(twice.bytes()) == "f has the key \"k\" twice");
  for (const std::uint32_t alignment : {0U, 24U}) {
    gguf_parts odd;
    odd.add_key("general.alignment", gguf_type::u32, bytes_of(alignment));
    CHECK(refused(odd.bytes()) ==
          "f: general.alignment is " + std::to_string(alignment) + ", needed is a power of two of 32 bits");
  }
}

TEST_CASE("a tensor that its file cannot hold is refused with the numbers") {
  CHECK(refused_tensor({4, 4}, f32, 0) == "nothing");
  CHECK(refused_tensor({32}, q8_0, 0) == "nothing");
  CHECK(refused_tensor({4, 5}, f32, 0) ==
        "f: tensor \"a\" is said to be at the bytes 0 to 0 + 80 of the tensors, which have 64");
  CHECK(refused_tensor({4, 4}, f32, 32) ==
        "f: tensor \"a\" is said to be at the bytes 32 to 32 + 64 of the tensors, which have 64");
  CHECK(refused_tensor({1}, f32, 18446744073709551584U).find("18446744073709551584 + 4") != std::string::npos);
  CHECK(refused_tensor({4}, f32, 16) == "f: tensor \"a\" begins at byte 16 of the tensors, which is no multiple of 32");
  CHECK(refused_tensor({48}, q4_0, 0) == "f: tensor \"a\" has rows of 48 values, and Q4_0 has blocks of 32");
  CHECK(refused_tensor({16, 2}, q4_0, 0) == "f: tensor \"a\" has rows of 16 values, and Q4_0 has blocks of 32");
  CHECK(refused_tensor({4}, 10, 0) == "f: tensor \"a\" is of ggml's type 10, which this library does not read");
  CHECK(refused_tensor({1, 1, 1, 1, 1}, f32, 0) == "f: tensor \"a\" has 5 dimensions, GGUF has up to 4");
  CHECK(refused_tensor({std::uint64_t{1} << 32U, std::uint64_t{1} << 31U}, f32, 0) ==
        "f: tensor \"a\": dimension 1 of 2147483648 makes more values than memory can hold");
  CHECK(refused_tensor({0, 4}, f32, 0) == "f: tensor \"a\" has a dimension of 0");

  gguf_parts parts;
  parts.add_tensor("a", {16}, f32, 0);
  parts.add_tensor("b", {4}, f32, 32);
  parts.data = std::string(64, '\x01');
  CHECK(refused(parts.bytes()) ==
        "f: tensor \"b\" begins at byte 32 of the tensors, where another one ends at byte 64: they overlap");
  gguf_parts twice;
  twice.add_tensor("a", {4}, f32, 0);
  twice.add_tensor("a", {4}, f32, 32);
  twice.data = std::string(64, '\x01');
  CHECK(refused(twice.bytes()) == "f has the tensor \"a\" twice");
  const std::string whole = twice.bytes();
  for (std::size_t size = 0; size < whole.size() - 48; ++size)
    CHECK(refused(whole.substr(0, size)) != "nothing");
}
