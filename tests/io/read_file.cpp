// SPDX-License-Identifier: MIT
#include <hmoe/io/read_file.hpp>

#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <string>

TEST_CASE("all bytes of a file, zeros and none at all included") {
  const support::scratch_folder folder;
  for (const std::string& bytes : {std::string(), std::string("a\0\n\xff", 4), std::string(100'000, 'x')}) {
    support::set_contents(folder / "file", bytes);
    const auto read = hmoe::io::read_file(folder / "file");
    REQUIRE(read.size() == bytes.size());
    CHECK((read.empty() || std::memcmp(read.data(), bytes.data(), bytes.size()) == 0));
  }
  std::filesystem::create_symlink("file", folder / "link");
  CHECK(hmoe::io::read_file(folder / "link").size() == 100'000);
}

TEST_CASE("what is no plain file is refused with its name") {
  const support::scratch_folder folder;
  CHECK_THROWS_WITH_AS((void)hmoe::io::read_file(folder / "none"), doctest::Contains("none is not a file"),
                       hmoe::error);
  CHECK_THROWS_WITH_AS((void)hmoe::io::read_file(folder.path()), doctest::Contains("is not a file"), hmoe::error);
  CHECK_THROWS_WITH_AS((void)hmoe::io::read_file("/dev/null"), doctest::Contains("is not a file"), hmoe::error);
}
