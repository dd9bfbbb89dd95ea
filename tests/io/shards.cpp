// SPDX-License-Identifier: MIT
#include <hmoe/io/safetensors_writer.hpp>
#include <hmoe/io/shards.hpp>

#include "support/error_of.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

using hmoe::io::sharded_safetensors;

namespace {
void write_shard(const std::filesystem::path& path, const std::vector<std::pair<std::string, float>>& tensors) {
  hmoe::io::safetensors_writer writer;
  for (const auto& [name, value] : tensors)
    writer.add<float>(name, hmoe::matrix_view<const float>(&value, 1, 1));
  writer.write(path.string());
}
/// Two files with tensors a, c and b, and an index with that map.
std::string refused(const std::string& weight_map) {
  const support::scratch_folder folder;
  write_shard(folder / "1", {{"a", 1}, {"c", 3}});
  write_shard(folder / "2", {{"b", 2}});
  const std::string index = (folder / "model.safetensors.index.json").string();
  support::set_contents(index, R"({"metadata": {"total_size": 12}, "weight_map": )" + weight_map + "}");
  try {
    const sharded_safetensors shards(folder.path().string());
    CHECK(shards.files().size() == 2);
    CHECK(shards.at("b").view<float>()(0, 0) == 2);
  } catch (const hmoe::error& e) {
    std::string text = e.what();
    for (std::size_t at = text.find(index); at != std::string::npos; at = text.find(index))
      text.replace(at, index.size(), "INDEX");
    return text;
  }
  return "nothing";
}
} // namespace

TEST_CASE("the tensors of all shards stand in one list") {
  const support::scratch_folder folder;
  write_shard(folder / "1", {{"a", 1}, {"c", 3}});
  write_shard(folder / "2", {{"b", 2}});
  const std::string index = (folder / "some.index.json").string();
  support::set_contents(index, R"({"weight_map": {"c": "1", "b": "2", "a": "1"}})");
  sharded_safetensors opened(index);
  const sharded_safetensors shards = std::move(opened); // the tensors stay where they are
  REQUIRE(shards.tensors().size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(shards.tensors()[i]->name() == std::string(1, static_cast<char>('a' + i)));
    CHECK(shards.tensors()[i]->view<float>()(0, 0) == static_cast<float>(i + 1));
  }
  CHECK(shards.find("d") == nullptr);
  CHECK_THROWS_WITH(static_cast<void>(shards.at("d")),
                    ("hmoe: " + index + " has no tensor \"d\"; it has 3 others").c_str());
}

TEST_CASE("a single file, by itself or in its folder") {
  const support::scratch_folder folder;
  const std::string none = folder.path().string();
  CHECK_THROWS_WITH(
      sharded_safetensors{none},
      ("hmoe: " + none + " is a folder without model.safetensors.index.json and without model.safetensors").c_str());
  write_shard(folder / "model.safetensors", {{"a", 1}});
  CHECK(sharded_safetensors((folder / "model.safetensors").string()).at("a").size() == 1);
  CHECK(sharded_safetensors(folder.path().string()).at("a").size() == 1);
}

TEST_CASE("an index that disagrees with its files, or leads elsewhere, is refused") {
  CHECK(refused(R"({"a": "1", "b": "2", "c": "1"})") == "nothing");
  CHECK(refused(R"({"a": "1", "b": "2", "c": "2", "d": "1"})") ==
        "hmoe: INDEX and its files disagree; 2 tensors are missing: \"d\", \"c\"; 1 tensor is not in the index: \"c\"");
  CHECK(refused(R"({"a": "1"})") == "hmoe: INDEX and its files disagree; 1 tensor is not in the index: \"c\"");
  for (const char* name : {"../x", "/etc/passwd", "", ".", "..", "x/y", "1\\u0000"})
    CHECK(refused(std::string(R"({"a": ")") + name + "\"}").ends_with("which is no name of a file beside the index"));
  CHECK(refused(R"({"a": "3"})").find("No such file") != std::string::npos);
  CHECK(refused(R"({"a": 1})") == "hmoe: INDEX: the file of tensor \"a\" is a whole number from 0, needed is a text");
  CHECK(refused(R"([])") == "hmoe: INDEX: weight_map is an array, needed is an object");
}

TEST_CASE("an index of unequal experts names files without tensors, too") {
  const support::scratch_folder folder;
  write_shard(folder / "1", {{"a", 1}});
  write_shard(folder / "2", {});
  const auto open = [&](const std::string& files) {
    support::set_contents(folder / "model.safetensors.index.json",
                          R"({"metadata": {"ragged_files": )" + files + R"(}, "weight_map": {"a": "1"}})");
    return support::error_of([&] {
      const sharded_safetensors shards(folder.path().string());
      CHECK(shards.files().size() == 2);
      CHECK(shards.files().back().name() == (folder / "2").string());
    });
  };
  CHECK(open(R"(["1", "2"])") == "no error");
  CHECK(open(R"(["2"])") == "no error");
  CHECK(open(R"(["../x"])").ends_with(": ragged_files has \"../x\", which is no name of a file beside the index"));
  CHECK(open("3").ends_with(": ragged_files is a whole number from 0, needed is an array"));
  write_shard(folder / "2", {{"b", 2}});
  CHECK(open(R"(["2"])").ends_with("and its files disagree; 1 tensor is not in the index: \"b\""));
}
