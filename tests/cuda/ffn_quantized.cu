// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "cuda/quantized_checks.hpp"
#include "cuda/small_tiles.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

using namespace cuda_checks;

// Not in an unnamed namespace: kernels are named after it.
/// The words of a warp's fragments, [cells × 2 steps × 32 lanes × 4].
template <class S, class Block>
__global__ void decode_cells(const device::weight_cell<Block>* cells, std::uint32_t* words) {
  using tile = device::cell_tile<S, Block, 16, 32>;
  __shared__ uint4 shared[sizeof(device::weight_cell<Block>) / 16];
  for (unsigned i = threadIdx.x; i < sizeof shared / 16; i += 32)
    shared[i] = reinterpret_cast<const uint4*>(cells + blockIdx.x)[i];
  __syncthreads();
  device::column_fragments<device::tensor_atom_16<S>, tile, 1> fragments(tile{reinterpret_cast<S*>(shared)});
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    device::tensor_fragment columns[1];
    fragments.load(columns, 0, 16 * step);
    for (int w = 0; w < 4; ++w)
      words[((blockIdx.x * 2 + static_cast<unsigned>(step)) * 32 + threadIdx.x) * 4 + static_cast<unsigned>(w)] =
          columns[0].words[w];
  }
}

namespace {

/// All codes with many scales.
template <class Block, class S> void check_decoding() {
  using cell = device::weight_cell<Block>;
  support::random_source random(5);
  std::vector<cell> cells;
  std::vector<Block> blocks; // of a cell, row by row
  const auto add = [&](const Block& block) {
    if (blocks.size() % 16 == 0)
      cells.emplace_back();
    cells.back().set(blocks.size() % 16, block);
    blocks.push_back(block);
  };
  if constexpr (std::is_same_v<Block, mxfp4_block>) {
    for (unsigned exponent = 0; exponent < 256; ++exponent) {
      Block block{static_cast<std::uint8_t>(exponent), {}};
      for (std::size_t i = 0; i < 32; ++i)
        block.codes.set(i, static_cast<std::uint8_t>((i + exponent) % 16));
      add(block);
    }
  } else {
    for (unsigned bits = 0; bits < 1U << 16U; bits += 29) {
      hmoe::half scale{}, offset{};
      scale.bits = static_cast<std::uint16_t>(bits);
      offset.bits = static_cast<std::uint16_t>(random.size(0, 0x7BFF) | random.size(0, 1) << 15U);
      if ((bits & 0x7C00U) == 0x7C00U) // no finite number
        continue;
      Block block{};
      block.scale_bits = scale;
      for (std::size_t i = 0; i < 32; ++i)
        if constexpr (std::is_same_v<Block, q8_block>)
          block.codes[i] = static_cast<std::uint8_t>(8 * i + bits % 8);
        else
          block.codes.set(i, static_cast<std::uint8_t>((i + bits) % 16));
      if constexpr (std::is_same_v<Block, q4_offset_block>)
        block.offset_bits = offset;
      add(block);
    }
    while (blocks.size() % 16 != 0)
      add(blocks.back());
  }
  const device_array device_cells(cells);
  const device_array<std::uint32_t> words(cells.size() * 2 * 32 * 4);
  decode_cells<S, Block><<<static_cast<unsigned>(cells.size()), 32>>>(device_cells.data(), words.data());
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  const std::vector<std::uint32_t> got = words.download();
  std::size_t wrong = 0;
  for (std::size_t b = 0; b < blocks.size(); ++b)
    for (std::size_t term = 0; term < 32; ++term) {
      const device::cell_place at = device::place_in_cell(b % 16, term);
      S value{};
      value.bits =
          static_cast<std::uint16_t>(got[((b / 16 * 2 + at.step) * 32 + at.lane) * 4 + at.word] >> (16 * at.part));
      const auto is = static_cast<float>(value), must = static_cast<float>(S(blocks[b].value(term)));
      wrong += is == must || (std::isnan(is) && std::isnan(must)) ? 0 : 1;
    }
  CHECK(wrong == 0);
}

template <class Block> void check_all() {
  using S = bfloat16;
  check_decoding<Block, S>();
  check_decoding<Block, hmoe::half>();
  for (const forward_case& batch : forward_cases)
    check_quantized<Block, S>(72, {1, 40, 7, 33, 100}, batch, true);
  check_quantized<Block, S>(39, {9, 70}, {12, load::random, 39}, false); // tokens without alignment
}

TEST_CASE("Weights in q8 blocks [race]") { check_all<q8_block>(); }
TEST_CASE("Weights in q4 blocks [race]") { check_all<q4_block>(); }
TEST_CASE("Weights in q4 blocks with an offset [race]") { check_all<q4_offset_block>(); }
TEST_CASE("Weights in mxfp4 blocks [race]") { check_all<mxfp4_block>(); }

} // namespace
