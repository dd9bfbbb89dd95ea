// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/backends/cuda/device_ffn.hpp>
#include <hmoe/core/quantized_block.hpp>
#include <hmoe/experts/glu.hpp>

#include "cuda/forward_checks.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <utility>

using namespace cuda_checks;

/// The tiles of layers with quantised weights.
namespace hmoe::backends::cuda_detail {
template <> constexpr block_shapes product_tiles<bfloat16>() noexcept {
  return {{128, 128, 32, 2, 2, 2}, {32, 64, 64, 1, 4, 3}, {128, 128, 32, 2, 2, 2}};
}
} // namespace hmoe::backends::cuda_detail

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

using glu = experts::glu_bank<float, experts::silu>;

/// A bank whose matrices are in blocks, or floats that have yet to be quantised. Behind the end of a row blocks have
/// ones, which must not count. The bank gets the weights as they are read back, rounded to S.
template <class Block, class S> class quantized_source {
public:
  static constexpr std::size_t lanes = 2;
  quantized_source(glu& bank, bool in_blocks) : bank_(&bank), original_(bank), in_blocks_(in_blocks) {
    for (std::size_t e = 0; e < bank.size(); ++e)
      for (std::size_t m = 0; m <= lanes; ++m)
        blocks_[{e, m}] = quantize(m == 0 ? bank.gate(e) : m == 1 ? bank.up(e) : bank.down(e));
  }
  [[nodiscard]] std::size_t size() const { return bank_->size(); }
  [[nodiscard]] std::size_t d_model() const { return bank_->d_model(); }
  [[nodiscard]] std::size_t width(std::size_t e) const { return bank_->width(e); }
  [[nodiscard]] bool has_biases() const { return true; }
  void read(std::size_t e, std::size_t m, std::size_t first, matrix_view<float> to) const {
    REQUIRE(!in_blocks_);
    experts::weights_in_memory(original_.weights()).read(e, m, first, to);
  }
  void read_bias(std::size_t e, std::size_t m, std::size_t first, matrix_view<float> to) const {
    experts::weights_in_memory(original_.weights()).read_bias(e, m, first, to);
  }
  template <class> [[nodiscard]] bool has_blocks(std::size_t, std::size_t) const { return in_blocks_; }
  void read_blocks(std::size_t e, std::size_t m, std::size_t first, std::size_t rows, Block* to) const {
    const std::size_t stride = blocks_of(m < lanes ? d_model() : width(e), quantized_block_size);
    std::copy_n(blocks_.at({e, m}).begin() + static_cast<std::ptrdiff_t>(first * stride), rows * stride, to);
  }

private:
  [[nodiscard]] std::vector<Block> quantize(matrix_view<float> weights) const {
    std::vector<Block> list;
    for (std::size_t r = 0; r < weights.rows(); ++r)
      for (std::size_t first = 0; first < weights.cols(); first += quantized_block_size) {
        float values[quantized_block_size];
        for (std::size_t i = 0; i < quantized_block_size; ++i)
          values[i] = first + i < weights.cols() ? weights(r, first + i) : in_blocks_ ? 1.0F : 0.0F;
        list.push_back(Block::quantize(values));
        for (std::size_t i = 0; i < quantized_block_size && first + i < weights.cols(); ++i)
          weights(r, first + i) = narrow<S>(list.back().value(i));
      }
    return list;
  }

  glu* bank_;
  glu original_;
  std::map<std::pair<std::size_t, std::size_t>, std::vector<Block>> blocks_; ///< of expert and matrix, row by row
  bool in_blocks_;
};

template <class Block> struct quantized_weights {
  device::device_ffn<2, Block> bank;
  device::ffn_arrays<Block> arrays = bank.arrays(experts_before);
  std::size_t widest = bank.layout().widest();
};

/// The reference's results, and bit for bit those of weights in S that were decoded before.
template <class Block, class S>
void check(std::size_t d, std::vector<std::size_t> widths, const forward_case& batch, bool in_blocks) {
  glu bank = random_weights(glu(d, std::move(widths), experts::biases::all));
  const quantized_source<Block, S> source(bank, in_blocks);
  const quantized_weights<Block> weights{device::device_ffn<2, Block>(executors::cuda_stream{}, source)};
  const device_weights<S, 2> decoded(bank.weights(), experts_before);
  CHECK(check_forward<2, S>(bank, weights, bank.gate_function(), batch, {}) ==
        check_forward<2, S>(bank, decoded, bank.gate_function(), batch, {}));
}

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
    check<Block, S>(72, {1, 40, 7, 33, 100}, batch, true);
  check<Block, S>(39, {9, 70}, {12, load::random, 39}, false);  // tokens without alignment
  check<Block, S>(100, {70}, {260, load::one_expert, 0}, true); // the tiles for many rows
}

TEST_CASE("Weights in q8 blocks [race]") { check_all<q8_block>(); }
TEST_CASE("Weights in q4 blocks [race]") { check_all<q4_block>(); }
TEST_CASE("Weights in q4 blocks with an offset [race]") { check_all<q4_offset_block>(); }
TEST_CASE("Weights in mxfp4 blocks [race]") { check_all<mxfp4_block>(); }

} // namespace
