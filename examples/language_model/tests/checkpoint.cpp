// SPDX-License-Identifier: MIT
#include "checkpoint.hpp"

#include <hmoe/core/error.hpp>

#include "bytes.hpp"
#include "support.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <string>
#include <vector>

namespace language_model {
namespace {

checkpoint example_checkpoint() {
  return {{{"seed", 1}, {"model", {{"d_model", 64}}}}, {{"steps", 12}}, {{"a", {1.5F, -2.25F}}, {"b", {0.1F}}}};
}

TEST_CASE("a checkpoint comes back as it was saved") {
  const temporary_folder folder;
  save_checkpoint(folder / "c", example_checkpoint());
  const checkpoint loaded = load_checkpoint(folder / "c");
  CHECK(loaded.config == example_checkpoint().config);
  CHECK(loaded.state == example_checkpoint().state);
  CHECK(loaded.find("a", 2) == example_checkpoint().tensors[0].values);
  CHECK(loaded.find("b", 1) == example_checkpoint().tensors[1].values);
  CHECK_THROWS_WITH_AS(loaded.find("c", 1), doctest::Contains("no tensor c"), hmoe::error);
  CHECK_THROWS_WITH_AS(loaded.find("a", 3), doctest::Contains("has 2 values where 3"), hmoe::error);
}

TEST_CASE("a file that is no intact checkpoint is refused, and the text says why") {
  const temporary_folder folder;
  save_checkpoint(folder / "good", example_checkpoint());
  const std::string good = read_file(folder / "good");
  const auto refused = [&](const std::string& contents, const char* why) {
    write_file(folder / "bad", contents);
    CHECK_THROWS_WITH_AS(load_checkpoint(folder / "bad"), doctest::Contains(why), hmoe::error);
  };
  refused("", "only 0 bytes");
  refused(std::string(100, 'x'), "not start with HMOECKPT");
  refused(good.substr(0, good.size() - 1), "truncated");
  refused(good.substr(0, 60), "truncated");
  refused(good + "x", "bytes too many");
  std::string version = good;
  version[8] = 2;
  refused(version, "version 2");
  for (const std::size_t at : {good.size() - 2, std::size_t{45}}) {
    std::string damaged = good;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    refused(damaged, "damaged");
  }
  std::string foreign = good; // well formed, but for a tensor that is longer than the file
  foreign.replace(foreign.find("\"size\":2"), 8, "\"size\":9");
  const std::uint64_t sum = checksum().add(foreign.substr(40)).value();
  std::memcpy(foreign.data() + 32, &sum, sizeof sum);
  refused(foreign, "more than the 3 scalars that it has: \"a\" should have 9");
  CHECK_THROWS_WITH_AS(load_checkpoint(folder / "none"), doctest::Contains("cannot read"), hmoe::error);
}

TEST_CASE("a save that fails leaves the old checkpoint intact and no rest behind") {
  const temporary_folder folder;
  save_checkpoint(folder / "c", example_checkpoint());
  const std::string before = read_file(folder / "c");
  CHECK_THROWS_WITH_AS(write_file(folder / "c",
                                  [](hmoe::io::file_writer& file) {
                                    file.write({});
                                    throw hmoe::error("the disk is full");
                                  }),
                       doctest::Contains("the disk is full"), hmoe::error);
  CHECK(read_file(folder / "c") == before);
  CHECK(std::distance(std::filesystem::directory_iterator(folder / "."), {}) == 1);
}

TEST_CASE("what can never be a file is refused with its name") {
  const temporary_folder folder;
  std::filesystem::create_directory(folder / "taken");
  write_file(folder / "plain", "text");
  CHECK_THROWS_WITH_AS(save_checkpoint(folder / "taken", example_checkpoint()), doctest::Contains("it is a folder"),
                       hmoe::error);
  CHECK_THROWS_WITH_AS(save_checkpoint(folder / "plain/c", example_checkpoint()),
                       doctest::Contains("cannot make the folder"), hmoe::error);
  CHECK_THROWS_WITH_AS(load_checkpoint(folder / "taken"), doctest::Contains("it is a folder"), hmoe::error);
  CHECK(read_file(folder / "plain") == "text");
}

/// The file with another description, and the header that belongs to it.
std::string with_description(const std::string& file, const std::string& description) {
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, file.data() + 16, sizeof bytes);
  std::string changed = file.substr(0, 40) + description + file.substr(40 + bytes);
  bytes = description.size();
  std::memcpy(changed.data() + 16, &bytes, sizeof bytes);
  const std::uint64_t sum = checksum().add(changed.substr(40)).value();
  std::memcpy(changed.data() + 32, &sum, sizeof sum);
  return changed;
}

TEST_CASE("a checkpoint whose description is not what this program writes is refused as such") {
  const temporary_folder folder;
  save_checkpoint(folder / "good", example_checkpoint());
  const std::string good = read_file(folder / "good");
  const nlohmann::json description{{"config", example_checkpoint().config},
                                   {"state", example_checkpoint().state},
                                   {"tensors", {{{"name", "a"}, {"size", 2}}, {{"name", "b"}, {"size", 1}}}}};
  write_file(folder / "c", with_description(good, description.dump()));
  CHECK(load_checkpoint(folder / "c").find("b", 1).size() == 1);
  std::vector<std::string> others{"", "{", "[]", "3", "{}"};
  for (const char* key : {"config", "state", "tensors"})
    for (const nlohmann::json& value : {nlohmann::json(), nlohmann::json(3), nlohmann::json("x")}) {
      auto changed = description;
      changed[key] = value;
      others.push_back(changed.dump());
    }
  for (const nlohmann::json& entry :
       {nlohmann::json(1), nlohmann::json{{"name", "a"}}, nlohmann::json{{"name", 1}, {"size", 1}},
        nlohmann::json{{"name", "a"}, {"size", -1}}, nlohmann::json{{"name", "a"}, {"size", 1e30}}}) {
    auto changed = description;
    changed["tensors"][0] = entry;
    others.push_back(changed.dump());
  }
  for (const auto& other : others) {
    CAPTURE(other);
    write_file(folder / "c", with_description(good, other));
    CHECK_THROWS_WITH_AS(load_checkpoint(folder / "c"), doctest::Contains("not what this program writes"), hmoe::error);
  }
}

TEST_CASE("another configuration is refused with the settings that differ") {
  const nlohmann::json there{{"seed", 1}, {"model", {{"d_model", 64}, {"heads", 2}}}};
  nlohmann::json now = there;
  CHECK_NOTHROW(require_same_config(there, now, "file"));
  now["model"]["d_model"] = 32;
  CHECK_THROWS_WITH_AS(require_same_config(there, now, "file"), doctest::Contains("/model/d_model: 64 there, 32 now"),
                       hmoe::error);
}

} // namespace
} // namespace language_model
