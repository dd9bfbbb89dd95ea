// SPDX-License-Identifier: MIT
#include <hmoe/io/file_writer.hpp>
#include <hmoe/io/memory_map.hpp>

#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <string>
#include <string_view>
#include <utility>

using hmoe::io::memory_map;

namespace {
std::string_view text_of(const memory_map& map) {
  return {reinterpret_cast<const char*>(map.bytes().data()), map.bytes().size()};
}
} // namespace

TEST_CASE("a file is mapped, and the bytes stay where they are when the map is moved") {
  const support::scratch_folder folder;
  support::set_contents(folder / "a", "first");
  support::set_contents(folder / "b", "second");
  memory_map map((folder / "a").string());
  CHECK(text_of(map) == "first");
  CHECK(map.path() == (folder / "a").string());
  const auto* at = map.bytes().data();
  memory_map other(std::move(map));
  CHECK(other.bytes().data() == at);
  CHECK(text_of(other) == "first");
  other = memory_map((folder / "b").string());
  CHECK(text_of(other) == "second");
  CHECK(memory_map().bytes().empty());
}

TEST_CASE("an empty file has no bytes, and a replaced one stays") {
  const support::scratch_folder folder;
  support::set_contents(folder / "empty", "");
  CHECK(memory_map((folder / "empty").string()).bytes().empty());

  support::set_contents(folder / "a", "old");
  const memory_map map((folder / "a").string());
  hmoe::io::file_writer writer((folder / "a").string());
  writer.commit();
  CHECK(text_of(map) == "old");
}

TEST_CASE("what is no file is refused by name") {
  const support::scratch_folder folder;
  const std::string path = folder.path().string(), fifo = (folder / "fifo").string();
  CHECK_THROWS_WITH(memory_map{path}, ("hmoe: cannot read " + path + ": it is a folder").c_str());
  CHECK_THROWS_WITH(memory_map{path + "/none"},
                    ("hmoe: cannot read " + path + "/none: No such file or directory").c_str());
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  CHECK_THROWS_WITH(memory_map{fifo}, ("hmoe: cannot read " + fifo + ": it is no plain file").c_str());
}
