// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/io/safetensors.hpp>
#include <hmoe/io/safetensors_writer.hpp>

#include "support/random_matrix.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

using hmoe::io::safetensors_file;

namespace {
/// A file with that header and so many bytes behind it.
std::string with_header(const std::string& header, std::size_t data) {
  const std::uint64_t length = header.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + header + std::string(data, '\x01');
}
std::string with_length(std::uint64_t length, const std::string& rest) {
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + rest;
}
safetensors_file parse(const std::string& bytes) { return {std::as_bytes(std::span(bytes)), "f"}; }
/// What the file is refused with, without the leading "hmoe: ".
std::string refused(const std::string& bytes) {
  try {
    static_cast<void>(parse(bytes));
  } catch (const hmoe::error& e) {
    return std::string(e.what()).substr(6);
  }
  return "nothing";
}
/// The same, of a header with such a tensor "a" and 8 bytes of data.
std::string refused_tensor(const std::string& tensor) { return refused(with_header("{\"a\":" + tensor + "}", 8)); }
} // namespace

TEST_CASE("tensors and metadata of a file") {
  const std::string bytes =
      with_header(R"({"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]},"__metadata__":{"z":"1","format":"pt"},)"
                  R"("a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
                  R"("none":{"dtype":"F64","shape":[0,7],"data_offsets":[8,8]},"one":{"dtype":"BOOL","shape":[],)"
                  R"("data_offsets":[11,12],"more":{"is":"ignored"}}}   )",
                  12);
  const safetensors_file file = parse(bytes);
  REQUIRE(file.tensors().size() == 4);
  CHECK(file.tensors()[0].name() == "a");
  CHECK(file.at("a").description() == "F32 [2, 1]");
  CHECK(file.at("b").bytes().size() == 3);
  CHECK(file.at("none").size() == 0);
  CHECK(file.at("one").size() == 1);
  CHECK(file.find("c") == nullptr);
  CHECK_THROWS_WITH(static_cast<void>(file.at("c")), "hmoe: f has no tensor \"c\"; it has 4 others");
  REQUIRE(file.metadata().size() == 2);
  CHECK(*file.metadata("format") == "pt");
  CHECK(file.metadata("b") == nullptr);
  CHECK(parse(with_header("{}", 0)).tensors().empty());
}

TEST_CASE("what is no file of this format is refused with the numbers") {
  CHECK(refused("1234567") ==
        "f has 7 bytes, too few for a safetensors file, which begins with the length of its header in 8");
  CHECK(refused(with_length(3, "{}")) == "f is truncated, or no safetensors file: it says that its header has 3 bytes, "
                                         "and 2 follow");
  CHECK(refused(with_length(9223372036854775807U, "{}")) ==
        "f says that its header has 9223372036854775807 bytes, more than the format's limit of 100000000: it is no "
        "safetensors file");
  CHECK(refused(with_length(18446744073709551608U, "{}")).find("limit of 100000000") != std::string::npos);
  CHECK(refused(with_header("[]", 0)) == "f is no safetensors file: its header does not begin with '{'");
  CHECK(refused(with_header("", 0)) == "f is no safetensors file: its header does not begin with '{'");
  CHECK(refused(with_header("{\"a\":", 0)).starts_with("f: its header is no JSON in UTF-8"));
  CHECK(refused(with_header("{\"\xff\":{}}", 0)).starts_with("f: its header is no JSON in UTF-8"));
  std::string deep = "{\"a\":";
  for (int i = 0; i < 100'000; ++i)
    deep += '[';
  CHECK(refused(with_header(deep, 0)) == "f: its header is nested deeper than 8 levels");
  CHECK(refused(with_header(R"({"__metadata__":{"a":1}})", 0)) ==
        "f: __metadata__: \"a\" is a whole number from 0, needed is a text");
  CHECK(refused(with_header(R"({"__metadata__":[]})", 0)) == "f: __metadata__ is an array, needed is an object");
}

TEST_CASE("a tensor that its file cannot hold is refused with the numbers") {
  CHECK(refused_tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})") == "nothing");
  CHECK(refused_tensor("7") == "f: tensor \"a\" is a whole number from 0, needed is an object");
  CHECK(refused_tensor(R"({"shape":[2],"data_offsets":[0,8]})") == "f: tensor \"a\" has no member \"dtype\"");
  CHECK(refused_tensor(R"({"dtype":"F33","shape":[2],"data_offsets":[0,8]})") ==
        "f: tensor \"a\" is of the type \"F33\", which this library does not know");
  CHECK(refused_tensor(R"({"dtype":"Q8_0","shape":[32],"data_offsets":[0,34]})") ==
        "f: tensor \"a\" is of the type \"Q8_0\", which this library does not know");
  CHECK(refused_tensor(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})") ==
        "f: tensor \"a\": shape is a negative whole number, needed is a whole number from 0 to 2^64 - 1");
  CHECK(refused_tensor(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})") ==
        "f: tensor \"a\": shape is a real number, needed is a whole number from 0 to 2^64 - 1");
  CHECK(refused_tensor(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]})") ==
        "f: tensor \"a\": dimension 1 of 4294967296 makes more values than memory can hold");
  CHECK(refused_tensor(R"({"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]})") ==
        "f: tensor \"a\": dimension 1 of 4294967296 makes more values than memory can hold");
  CHECK(refused_tensor(R"({"dtype":"F64","shape":[4611686018427387905],"data_offsets":[0,8]})") ==
        "f: tensor \"a\": dimension 0 of 4611686018427387905 makes more values than memory can hold");
  CHECK(refused_tensor(R"({"dtype":"F4","shape":[5,3],"data_offsets":[0,8]})") ==
        "f: tensor \"a\" has 15 values of the type F4, of which 2 share 1 byte");
  CHECK(refused_tensor(R"({"dtype":"F4","shape":[4,4],"data_offsets":[0,8]})") == "nothing");
  CHECK(refused_tensor(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})") ==
        "f: tensor \"a\" is said to be at the bytes 0 to 8, which are 8; its shape and type need 12");
  CHECK(refused_tensor(R"({"dtype":"F32","shape":[3],"data_offsets":[0,12]})") ==
        "f: tensor \"a\" is said to be at the bytes 0 to 12 behind the header, where there are 8");
  CHECK(refused_tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})") ==
        "f: tensor \"a\" is said to be at the bytes 8 to 0 behind the header, where there are 8");
  CHECK(refused_tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,0]})")
            .find("18446744073709551608 to 0") != std::string::npos);
  CHECK(refused_tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,8]})") ==
        "f: tensor \"a\" has 3 data_offsets, needed are 2");
}

TEST_CASE("tensors that overlap, and bytes that none of them owns") {
  const auto two = [](const std::string& first, const std::string& second, std::size_t data) {
    return refused(with_header(
        R"({"a":{"dtype":"U8","shape":)" + first + R"(},"b":{"dtype":"U8","shape":)" + second + "}}", data));
  };
  CHECK(two(R"([4],"data_offsets":[0,4])", R"([4],"data_offsets":[4,8])", 8) == "nothing");
  CHECK(two(R"([4],"data_offsets":[0,4])", R"([4],"data_offsets":[3,7])", 7) ==
        "f: tensor \"b\" begins at byte 3 behind the header, where another one ends at byte 4: they overlap");
  CHECK(two(R"([4],"data_offsets":[0,4])", R"([4],"data_offsets":[0,4])", 4).ends_with("they overlap"));
  CHECK(two(R"([4],"data_offsets":[0,4])", R"([0],"data_offsets":[2,2])", 4).ends_with("they overlap"));
  CHECK(two(R"([4],"data_offsets":[0,4])", R"([2],"data_offsets":[5,7])", 7) ==
        "f: no tensor owns the bytes 4 to 5 behind the header");
  CHECK(two(R"([4],"data_offsets":[1,5])", R"([2],"data_offsets":[5,7])", 7) ==
        "f: no tensor owns the bytes 0 to 1 behind the header");
  CHECK(two(R"([4],"data_offsets":[0,4])", R"([2],"data_offsets":[4,6])", 9) ==
        "f: no tensor owns the bytes 6 to 9 behind the header");
  CHECK(refused(with_header("{}", 1)) == "f: no tensor owns the bytes 0 to 1 behind the header");
  CHECK(refused(with_header(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                            R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                            1)) == "f: its header has the key \"a\" twice in one object");
}

TEST_CASE("a bank works on the mapped file, bit for bit as on its own memory") {
  const support::scratch_folder folder;
  const std::string path = (folder / "model.safetensors").string();
  support::random_source random(31);
  constexpr std::size_t d = 5;
  const std::vector<std::size_t> widths{3, 0, 4};
  using bank_type = hmoe::experts::glu_bank<float, hmoe::experts::silu>;
  bank_type bank(d, widths);
  bank.initialize(hmoe::seed{7}, 0, {});
  hmoe::io::safetensors_writer writer;
  for (std::size_t e = 0; e < widths.size(); ++e) {
    const std::string prefix = "experts." + std::to_string(e);
    writer.add<float>(prefix + ".gate", std::as_const(bank).gate(e));
    writer.add<float>(prefix + ".up", std::as_const(bank).up(e));
    writer.add<float>(prefix + ".down", std::as_const(bank).down(e));
  }
  writer.write(path);

  const safetensors_file file(path);
  std::vector<hmoe::experts::ffn_tensors<const float, 2>> tensors;
  for (std::size_t e = 0; e < widths.size(); ++e) {
    const std::string prefix = "experts." + std::to_string(e);
    tensors.push_back({.lanes = {file.at(prefix + ".gate").view<float>(), file.at(prefix + ".up").view<float>()},
                       .output = file.at(prefix + ".down").view<float>()});
  }
  const bank_type mapped{hmoe::experts::ffn_weights<float, 2>(tensors)};
  CHECK(std::as_const(mapped).gate(0).data() == file.at("experts.0.gate").view<float>().data());
  const hmoe::matrix<float> x = support::random_matrix<float>(random, 6, d);
  for (std::size_t e = 0; e < widths.size(); ++e) {
    hmoe::matrix<float> y(6, d), expected(6, d), saved(6, bank.saved_per_row(e));
    bank.forward(hmoe::backends::reference{}, e, x.view(), expected.view(), saved.view());
    mapped.forward(hmoe::backends::reference{}, e, x.view(), y.view(), saved.view());
    CHECK(std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)) == 0);
  }
}
