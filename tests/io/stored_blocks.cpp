// SPDX-License-Identifier: MIT
#include <hmoe/core/quantized_block.hpp>
#include <hmoe/io/block_values.hpp>
#include <hmoe/io/stored_blocks.hpp>
#include <hmoe/io/tensor_type.hpp>
#include <hmoe/io/tensor_values.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstring>

namespace io = hmoe::io;

TEST_CASE_TEMPLATE("blocks of files have the values of ours, at any codes and scales", Block, hmoe::q8_block,
                   hmoe::q4_block, hmoe::q4_offset_block, hmoe::mxfp4_block) {
  std::size_t kinds = 0;
  for (const io::tensor_type_traits& traits : io::tensor_types) {
    if (!io::is_stored_as<Block>(traits.type))
      continue;
    ++kinds;
    CHECK(traits.block_values == hmoe::quantized_block_size);
    for (std::size_t start = 0; start < 64; ++start) {
      std::array<std::byte, 64> bytes{};
      for (std::size_t i = 0; i < bytes.size(); ++i)
        bytes[i] = static_cast<std::byte>(start * 37 + i * 73);
      // Scales of both signs, no infinity and no NaN.
      bytes[1] = static_cast<std::byte>(start % 2 == 0 ? 0x2a : 0xb3);
      bytes[3] = static_cast<std::byte>(start % 3 == 0 ? 0x35 : 0xb1);
      bytes[0] = static_cast<std::byte>(start * 3 + 1);
      std::array<float, hmoe::quantized_block_size> expected{};
      io::convert_values(traits.type, bytes.data(), expected.size(), expected.data());
      const auto block = io::block_from<Block>(bytes.data());
      for (std::size_t i = 0; i < expected.size(); ++i)
        CHECK(block.value(i) == expected[i]);
    }
  }
  CHECK(kinds == 1);
}
