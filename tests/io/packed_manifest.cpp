// SPDX-License-Identifier: MIT
#include <hmoe/io/packed_manifest.hpp>

#include <doctest/doctest.h>

#include <string>

using hmoe::io::packed_manifest;

namespace {
const char* const sound_packed_manifest =
    R"({"version":1,"layers":[{"prefix":"l.","d_model":4,"banks":[)"
    R"({"kind":"glu.silu","ids":[0,2],"format":"q8","lanes":2,"panel_columns":16,"widths":[3,0],"biases":true},)"
    R"({"kind":"constant","ids":[1],"format":"","lanes":0,"panel_columns":0,"widths":[],"biases":false}],)"
    R"("tensors":[{"name":"banks.0.panels","checksum":18446744073709551615},{"name":"w","checksum":7}]}]})";
std::string message_for(const std::string& old, const std::string& by) {
  std::string text = sound_packed_manifest;
  REQUIRE(text.find(old) != std::string::npos);
  text.replace(text.find(old), old.size(), by);
  try {
    static_cast<void>(packed_manifest::from_json(text, "m"));
  } catch (const hmoe::error& e) {
    return std::string(e.what()).substr(6);
  }
  return "nothing";
}
} // namespace

TEST_CASE("a manifest of packed layers and its text") {
  const packed_manifest manifest = packed_manifest::from_json(sound_packed_manifest, "m");
  CHECK(manifest.to_json() == sound_packed_manifest);
  const auto& layer = *manifest.find("l.");
  CHECK(layer.banks[0].widths == std::vector<std::size_t>{3, 0});
  CHECK(layer.banks[1].ids == std::vector<std::size_t>{1});
  CHECK(layer.find("banks.0.panels")->checksum == 0xffffffffffffffffU);
  CHECK(layer.find("x") == nullptr);
  CHECK(manifest.find("") == nullptr);
  CHECK(packed_manifest{}.to_json() == R"({"version":1,"layers":[]})");
}

TEST_CASE("what is no manifest of packed layers is refused") {
  CHECK(message_for("\"version\":1", "\"version\":2") == "m is of version 2, this library reads version 1");
  CHECK(message_for("[3,0]", "[3,2147483648]") == "m: layer \"l.\": bank 0: widths is 2147483648, more than 2^31 - 1");
  CHECK(message_for("[3,0]", "[3]") == "m: layer \"l.\": bank 0 has 1 widths and 2 ids");
  CHECK(message_for("\"name\":\"w\"", "\"name\":\"banks.0.panels\"") ==
        "m: layer \"l.\" has the tensor \"banks.0.panels\" twice");
  CHECK(message_for("\"biases\":true", "\"biases\":1") ==
        "m: layer \"l.\": bank 0: biases is a whole number from 0, needed is true or false");
  CHECK(
      message_for("\"checksum\":7", "\"checksum\":-7") ==
      "m: layer \"l.\": the checksum of \"w\" is a negative whole number, needed is a whole number from 0 to 2^64 - 1");
  const std::string layer = R"({"prefix":"l.","d_model":1,"banks":[],"tensors":[]},)";
  CHECK(message_for("\"layers\":[", "\"layers\":[" + layer) == "m has two layers with the prefix \"l.\"");
}
