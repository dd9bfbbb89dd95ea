// SPDX-License-Identifier: MIT
// Files that the formats' own libraries wrote, and the values that these libraries read of them: see
// scripts/golden_files.
#include <hmoe/core/matrix.hpp>
#include <hmoe/io/gguf.hpp>
#include <hmoe/io/ragged_checkpoint.hpp>
#include <hmoe/io/read_file.hpp>
#include <hmoe/io/safetensors.hpp>
#include <hmoe/io/safetensors_writer.hpp>

#include "support/ragged_layer.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace io = hmoe::io;

namespace {
std::string golden(const std::string& name) { return std::string(HMOE_GOLDEN_DIRECTORY) + "/files/" + name; }
std::vector<float> floats(const std::string& name) {
  const auto bytes = io::read_file(golden(name));
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}
bool same_bits(const float* a, const float* b, std::size_t count) {
  return std::memcmp(a, b, count * sizeof(float)) == 0;
}
} // namespace

TEST_CASE("our writer writes what the format's own library writes, byte for byte") {
  const support::scratch_folder folder;
  const std::string path = (folder / "copy").string();
  const io::safetensors_file file(golden("plain.safetensors"));
  CHECK(file.tensors().size() == 14);
  CHECK(file.at("z\n").view<float>()(1, 2) == 5);
  CHECK(*file.metadata("a\"b") == "ü\t");
  io::safetensors_writer writer;
  for (const auto& [key, text] : file.metadata())
    writer.set_metadata(key, text);
  for (const io::stored_tensor& tensor : file.tensors())
    writer.add(tensor.name(), tensor.type(), {tensor.shape().begin(), tensor.shape().end()}, tensor.bytes());
  writer.write(path);
  CHECK(support::contents_of(path) == support::contents_of(golden("plain.safetensors")));
}

TEST_CASE("every code of 8 and 4 bits has the value that ml_dtypes reads") {
  const std::vector<float> expected = floats("small_floats.f32");
  REQUIRE(expected.size() == 3 * 256 + 16);
  std::vector<std::byte> codes(256);
  for (std::size_t i = 0; i < codes.size(); ++i)
    codes[i] = static_cast<std::byte>(i);
  std::size_t first = 0;
  for (const io::tensor_type type : {io::tensor_type::f8_e4m3, io::tensor_type::f8_e5m2, io::tensor_type::f8_e8m0}) {
    std::vector<float> values(256);
    io::convert_values(type, codes.data(), values.size(), values.data());
    for (std::size_t i = 0; i < 256; ++i) { // a NaN's sign and payload say nothing
      CAPTURE(i);
      const float theirs = expected[first + i];
      CHECK((theirs != theirs ? values[i] != values[i] : same_bits(&values[i], &theirs, 1)));
    }
    first += 256;
  }
  std::vector<std::byte> pairs;
  for (unsigned i = 0; i < 16; i += 2)
    pairs.push_back(static_cast<std::byte>(i | (i + 1) << 4U));
  std::vector<float> values(16);
  io::convert_values(io::tensor_type::f4, pairs.data(), values.size(), values.data());
  CHECK(same_bits(values.data(), expected.data() + first, values.size()));
}

TEST_CASE("a GGUF file of ggml's own library: metadata, and blocks as it reads them") {
  const io::gguf_file file(golden("blocks.gguf"));
  CHECK(file.version() == 3);
  CHECK(file.alignment() == 64);
  const auto value = [&](const char* key) { return *file.metadata(key); };
  CHECK(value("general.architecture").text("it") == "llama");
  CHECK(value("v.u8").natural("it") == 200);
  CHECK(value("v.i8").number("it") == -100);
  CHECK(value("v.u16").natural("it") == 60000);
  CHECK(value("v.i16").number("it") == -30000);
  CHECK(value("v.u32").natural("it") == 4000000000U);
  CHECK(value("v.i32").number("it") == -2000000000);
  CHECK(value("v.f32").number("it") == 0.5);
  CHECK(value("v.bool").boolean("it"));
  CHECK(value("v.text").text("it") == "ü");
  CHECK(value("v.u64").natural("it") == 18446744073709551615U);
  CHECK(value("v.i64").number("it") == -0x1p63);
  CHECK(value("v.f64").number("it") == 1e300);
  const auto texts = value("v.texts").elements("it");
  REQUIRE(texts.size() == 3);
  CHECK(texts[0].text("it") == "a");
  CHECK(texts[1].text("it").empty());
  CHECK(texts[2].text("it") == "bc");
  REQUIRE(value("v.numbers").size() == 3);
  CHECK(value("v.numbers").elements("it")[1].number("it") == -2);
  CHECK_FALSE(value("v.flags").elements("it")[1].boolean("it"));

  const std::vector<float> expected = floats("blocks.f32");
  const std::vector<std::string> names{"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q4_k", "q6_k", "mxfp4"};
  REQUIRE(expected.size() == names.size() * 512);
  for (std::size_t i = 0; i < names.size(); ++i) {
    CAPTURE(names[i]);
    const io::stored_tensor& tensor = file.at("blk.0." + names[i]);
    REQUIRE(tensor.shape().size() == 3);
    CHECK(tensor.shape()[0] == 2);
    CHECK(tensor.shape()[1] == 1);
    CHECK(tensor.shape()[2] == 256);
    hmoe::matrix<float> values(2, 256), part(1, 256);
    tensor.read(values.view());
    CHECK(same_bits(values.data(), expected.data() + i * 512, 512));
    tensor.slice(1).read(part.view());
    CHECK(same_bits(part.data(), expected.data() + i * 512 + 256, 256));
  }
}

TEST_CASE("a layer of unequal experts that numpy wrote is read, and written again byte for byte") {
  const support::scratch_folder folder;
  const std::string path = (folder / "copy").string();
  auto layer = support::make_ragged_layer<float>();
  std::vector<float> expected, values;
  const auto values_to = [](std::vector<float>& to) {
    return [&to](const hmoe::parameter_info&, hmoe::matrix_view<const float> view) {
      to.insert(to.end(), view.data(), view.data() + view.size());
    };
  };
  std::as_const(layer).visit_parameters(values_to(expected));
  hmoe::set_zero(layer);
  io::load_ragged_layer(io::safetensors_file(golden("ragged.safetensors")), layer, "layers.0.");
  std::as_const(layer).visit_parameters(values_to(values));
  CHECK(values == expected);
  io::ragged_checkpoint_writer writer;
  writer.add(layer, "layers.0.", {"pruned", "HEAPr, \"half\"", "ü"});
  writer.write(path);
  CHECK(support::contents_of(path) == support::contents_of(golden("ragged.safetensors")));
}
