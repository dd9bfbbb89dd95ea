// SPDX-License-Identifier: MIT
#include <hmoe/io/ragged_manifest.hpp>

#include <doctest/doctest.h>

#include <string>

using hmoe::io::ragged_manifest;

namespace {
const char* const good =
    R"({"version":1,"layers":[{"prefix":"l.","d_model":4,"reason":{"what":"pruned","by":"a \"b\"","from":"m"},)"
    R"("experts":[{"id":0,"kind":"glu.silu","width":3,"format":"F32","tensors":["gate","up"]},)"
    R"({"id":1,"kind":"vector","width":0,"format":"","tensors":[]}],"tensors":["router.weight"]}]})";
std::string refused(std::string from, const std::string& old = "", const std::string& by = "") {
  if (!old.empty()) {
    REQUIRE(from.find(old) != std::string::npos);
    from.replace(from.find(old), old.size(), by);
  }
  try {
    static_cast<void>(ragged_manifest::from_json(from, "m"));
  } catch (const hmoe::error& e) {
    return std::string(e.what()).substr(6);
  }
  return "nothing";
}
} // namespace

TEST_CASE("a manifest and its text") {
  const ragged_manifest manifest = ragged_manifest::from_json(good, "m");
  CHECK(manifest.to_json() == good);
  REQUIRE(manifest.layers.size() == 1);
  const auto& layer = *manifest.find("l.");
  CHECK(layer.widths() == std::vector<std::size_t>{3, 0});
  CHECK(layer.reason == hmoe::io::ragged_reason{"pruned", "a \"b\"", "m"});
  CHECK(layer.experts[0].tensors == std::vector<std::string>{"gate", "up"});
  CHECK(manifest.find("") == nullptr);
  CHECK(ragged_manifest{}.to_json() == R"({"version":1,"layers":[]})");
  // Of the reason and the format nothing is required, and what a later writer adds is skipped.
  CHECK(ragged_manifest::from_json(R"({"layers":[{"prefix":"","d_model":1,"tensors":[],"experts":[{"tensors":[],)"
                                   R"("width":0,"kind":"identity","id":0,"precision":[4]}]}],"version":1,"more":{}})",
                                   "m")
            .layers[0]
            .reason.what == "trained");
}

TEST_CASE("what is no manifest is refused") {
  CHECK(refused(good) == "nothing");
  CHECK(refused("[]") == "m is an array, needed is an object");
  CHECK(refused(good, "\"version\":1", "\"version\":2") == "m is of version 2, this library reads version 1");
  CHECK(refused(good, "\"d_model\":4", "\"d_model\":0") == "m: layer \"l.\" has d_model 0");
  CHECK(refused(good, "\"d_model\":4", "\"d_model\":4294967296") ==
        "m: layer \"l.\": d_model is 4294967296, more than 2^31 - 1");
  CHECK(refused(good, "\"width\":3", "\"width\":-3") ==
        "m: layer \"l.\": expert 0: width is a negative whole number, needed is a whole number from 0 to 2^64 - 1");
  CHECK(refused(good, "\"id\":1", "\"id\":0") == "m: layer \"l.\": expert 1 in the list has the id 0");
  CHECK(refused(good, "\"kind\":\"vector\"", "\"kind\":7") ==
        "m: layer \"l.\": expert 1: kind is a whole number from 0, needed is a text");
  CHECK(refused(good, "[\"router.weight\"]", "[1]") ==
        "m: layer \"l.\": tensors is a whole number from 0, needed is a text");
  CHECK(refused(good, "{\"what\":\"pruned\",\"by\":\"a \\\"b\\\"\",\"from\":\"m\"}", "3") ==
        "m: layer \"l.\": reason is a whole number from 0, needed is an object");
  const std::string layer = R"({"prefix":"","d_model":1,"tensors":[],"experts":[]})";
  CHECK(refused(R"({"version":1,"layers":[)" + layer + "]}") == "m: layer \"\" has no expert");
  std::string twice = good;
  const std::string first = twice.substr(23, twice.size() - 25);
  CHECK(refused(twice.substr(0, twice.size() - 2) + "," + first + "]}") == "m has two layers with the prefix \"l.\"");
}
