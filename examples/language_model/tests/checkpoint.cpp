// SPDX-License-Identifier: MIT
#include "checkpoint.hpp"

#include <hmoe/core/error.hpp>

#include "bytes.hpp"
#include "support.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>

namespace language_model {
namespace {

checkpoint example() {
  return {{{"seed", 1}, {"model", {{"d_model", 64}}}}, {{"steps", 12}}, {{"a", {1.5F, -2.25F}}, {"b", {0.1F}}}};
}

TEST_CASE("a checkpoint comes back as it was saved") {
  const temporary_folder folder;
  save_checkpoint(folder / "c", example());
  const checkpoint loaded = load_checkpoint(folder / "c");
  CHECK(loaded.config == example().config);
  CHECK(loaded.state == example().state);
  CHECK(loaded.find("a", 2) == example().tensors[0].values);
  CHECK(loaded.find("b", 1) == example().tensors[1].values);
  CHECK_THROWS_WITH_AS(loaded.find("c", 1), doctest::Contains("no tensor c"), hmoe::error);
  CHECK_THROWS_WITH_AS(loaded.find("a", 3), doctest::Contains("has 2 values where 3"), hmoe::error);
}

TEST_CASE("a file that is no intact checkpoint is refused, and the text says why") {
  const temporary_folder folder;
  save_checkpoint(folder / "good", example());
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
  save_checkpoint(folder / "c", example());
  const std::string before = read_file(folder / "c");
  CHECK_THROWS_WITH_AS(write_file(folder / "c", [](std::ostream& out) { out.setstate(std::ios::badbit); }),
                       doctest::Contains("cannot write"), hmoe::error);
  CHECK(read_file(folder / "c") == before);
  CHECK_FALSE(std::filesystem::exists(folder / "c.tmp"));
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
