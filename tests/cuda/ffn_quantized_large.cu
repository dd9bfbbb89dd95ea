// SPDX-License-Identifier: MIT
// Quantised weights by the tiles for many rows; ffn_quantized.cu has those for few, and what decodes.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "cuda/quantized_checks.hpp"

#include <doctest/doctest.h>

using namespace cuda_checks;

/// For any number of rows.
namespace hmoe::backends::cuda_detail {
template <> constexpr block_shapes product_tiles<bfloat16>() noexcept {
  constexpr block_shape large{128, 128, 32, 2, 2, 2};
  return {large, large, large};
}
} // namespace hmoe::backends::cuda_detail

namespace {

template <class Block> void check_all() {
  check_quantized<Block, bfloat16>(100, {70}, {260, load::one_expert, 0}, true);
  check_quantized<Block, bfloat16>(72, {1, 40, 7, 33, 100}, {23, load::random, 0}, true);
}

TEST_CASE("Weights in q8 blocks, large tiles [race]") { check_all<q8_block>(); }
TEST_CASE("Weights in q4 blocks, large tiles [race]") { check_all<q4_block>(); }
TEST_CASE("Weights in q4 blocks with an offset, large tiles [race]") { check_all<q4_offset_block>(); }
TEST_CASE("Weights in mxfp4 blocks, large tiles [race]") { check_all<mxfp4_block>(); }

} // namespace
