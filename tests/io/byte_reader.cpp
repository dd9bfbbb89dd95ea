// SPDX-License-Identifier: MIT
#include <hmoe/io/byte_reader.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <span>

TEST_CASE("values come off the front in their order") {
  const std::array<std::uint32_t, 4> numbers{1, 2, 3, 4};
  hmoe::io::byte_reader reader(std::as_bytes(std::span(numbers)), "numbers.bin");
  CHECK(reader.value<std::uint32_t>() == 1);
  std::array<std::uint32_t, 2> two{};
  reader.values(two.data(), 2);
  CHECK(two == std::array<std::uint32_t, 2>{2, 3});
  CHECK(reader.remaining() == 4);
  reader.values<std::uint64_t>(nullptr, 0);
  CHECK(reader.remaining() == 4);
  const auto last = reader.bytes(3);
  CHECK(last.data() == std::as_bytes(std::span(numbers)).data() + 12);
  CHECK(last.size() == 3);
  CHECK_THROWS_AS(static_cast<void>(reader.bytes(2)), hmoe::error);
  CHECK(reader.remaining() == 1);
}

TEST_CASE("more than is there is refused with the name and the numbers, and nothing is taken") {
  const std::array<std::uint32_t, 2> numbers{7, 8};
  hmoe::io::byte_reader reader(std::as_bytes(std::span(numbers)), "numbers.bin");
  CHECK_THROWS_WITH_AS(reader.require_room(3, 4), doctest::Contains("numbers.bin says that 3 values of 4 bytes follow"),
                       hmoe::error);
  CHECK_THROWS_AS(reader.require_room(~std::uint64_t{0} / 4 + 2, 4), hmoe::error); // its product would wrap to 4
  std::array<std::uint64_t, 2> more{};
  CHECK_THROWS_WITH_AS(reader.values(more.data(), 2), doctest::Contains("it has 8 bytes left"), hmoe::error);
  CHECK(reader.value<std::uint32_t>() == 7);
}
