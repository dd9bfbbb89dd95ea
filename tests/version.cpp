// SPDX-License-Identifier: MIT
#include <hmoe/version.hpp>

#include <doctest/doctest.h>

#include <string>

TEST_CASE("the headers and CMake name the same version") {
  const std::string from_headers = std::to_string(hmoe::version_major) + '.' + std::to_string(hmoe::version_minor) +
                                   '.' + std::to_string(hmoe::version_patch);
  CHECK(from_headers == HMOE_CMAKE_VERSION);
}
