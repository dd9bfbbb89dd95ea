// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/device_scalar.cuh>
#include <hmoe/backends/cuda/tile_loader.cuh>
#include <hmoe/core/quantized_block.hpp>

#include <cstdint>
#include <type_traits>

/// Weights in the blocks of hmoe/core/quantized_block.hpp on their way to the tensor cores: codes and scales are read
/// into registers, become bfloat16 or half there, and are stored in the shared tile as 16-bit weights would be.
namespace hmoe::backends::cuda_detail {

/// Eight weights of a block, as they are stored.
struct coded_packet {
  std::uint32_t codes[2]; ///< four bits each in the first, or eight in both
  float scale, offset;
};

[[nodiscard]] __device__ inline std::uint32_t load_pair(const std::uint8_t* bytes) { // at an even address
  return *reinterpret_cast<const std::uint16_t*>(bytes);
}

/// load(block, p): weights 8p … 8p + 7. value(packet, i): weight i of these, as Block::value has it.
template <class Block> struct block_codes;

template <> struct block_codes<q8_block> {
  [[nodiscard]] __device__ static coded_packet load(const q8_block& block, int p) {
    const std::uint8_t* from = block.codes + 8 * p;
    return {{load_pair(from) | load_pair(from + 2) << 16U, load_pair(from + 4) | load_pair(from + 6) << 16U},
            to_float(block.scale_bits),
            0};
  }
  [[nodiscard]] __device__ static float value(const coded_packet& packet, int i) {
    const auto code = static_cast<int>(packet.codes[i / 4] >> (i % 4 * 8) & 255U);
    return packet.scale * static_cast<float>(code - q8_block::zero);
  }
};

template <> struct block_codes<q4_block> {
  [[nodiscard]] __device__ static coded_packet load(const q4_block& block, int p) {
    const std::uint8_t* from = block.codes.bytes + 4 * p;
    return {{load_pair(from) | load_pair(from + 2) << 16U, 0}, to_float(block.scale_bits), 0};
  }
  [[nodiscard]] __device__ static float value(const coded_packet& packet, int i) {
    const auto code = static_cast<int>(packet.codes[0] >> (i * 4) & 15U);
    return packet.scale * static_cast<float>(code - q4_block::zero);
  }
};

template <> struct block_codes<q4_offset_block> {
  [[nodiscard]] __device__ static coded_packet load(const q4_offset_block& block, int p) {
    const std::uint8_t* from = block.codes.bytes + 4 * p;
    return {{load_pair(from) | load_pair(from + 2) << 16U, 0}, to_float(block.scale_bits), to_float(block.offset_bits)};
  }
  [[nodiscard]] __device__ static float value(const coded_packet& packet, int i) {
    return packet.scale * static_cast<float>(packet.codes[0] >> (i * 4) & 15U) + packet.offset;
  }
};

template <> struct block_codes<mxfp4_block> {
  [[nodiscard]] __device__ static coded_packet load(const mxfp4_block& block, int p) {
    const std::uint8_t* from = block.codes.bytes + 4 * p; // a block has 17 bytes: any address
    std::uint32_t codes = 0;
#pragma unroll
    for (unsigned b = 0; b < 4; ++b)
      codes |= static_cast<std::uint32_t>(from[b]) << (8 * b);
    const std::uint32_t exponent = block.exponent;
    return {{codes, 0}, __uint_as_float(exponent == 0 ? 0x00400000U : exponent << 23U), 0}; // 2^(exponent − 127)
  }
  [[nodiscard]] __device__ static float value(const coded_packet& packet, int i) {
    const std::uint32_t code = packet.codes[0] >> (i * 4), exponent = code >> 1U & 3U, fraction = code & 1U;
    const std::uint32_t doubled = exponent == 0 ? fraction : (2 + fraction) << (exponent - 1);
    const float magnitude = packet.scale * (static_cast<float>(doubled) / 2);
    return (code & 8U) != 0 ? -magnitude : magnitude;
  }
};

/// A k_major_loader of such weights: fetch begins to read a step, store writes it when it is there.
template <class S, class Operand, int Rows, int Depth, int Threads> class block_loader {
  using Block = typename Operand::value_type;
  static_assert(sizeof(S) == 2, "quantised weights are for activations in bfloat16 or half");

public:
  using tile = shared_tile<S, Rows, Depth, true>;

  __device__ block_loader(const Operand& operand, int first) : columns_(operand.columns) {
#pragma unroll
    for (int i = 0; i < geometry::passes; ++i)
      rows_[i] = operand.row(first + geometry::line() + i * geometry::lines_per_pass);
  }
  __device__ void fetch(S*, int k) {
    constexpr int block = static_cast<int>(quantized_block_size);
    const int from = k + geometry::column();
#pragma unroll
    for (int i = 0; i < geometry::passes; ++i) {
      there_[i] = rows_[i] != nullptr && from < columns_;
      if (there_[i])
        packets_[i] = block_codes<Block>::load(rows_[i][from / block], from % block / tile::packet);
    }
  }
  /// Behind the end of a row there may be weights of its last block: they meet zeros of the other operand.
  __device__ void store(S* shared) const {
    const tile to{shared};
#pragma unroll
    for (int i = 0; i < geometry::passes; ++i) {
      uint4 words{};
      if (there_[i])
        words = {pair(i, 0), pair(i, 2), pair(i, 4), pair(i, 6)};
      *reinterpret_cast<uint4*>(to.at(geometry::line() + i * geometry::lines_per_pass, geometry::column())) = words;
    }
  }

private:
  using geometry = loader_geometry<tile, Threads>;
  [[nodiscard]] __device__ std::uint32_t pair(int i, int w) const {
    return pack_pair<S>(block_codes<Block>::value(packets_[i], w), block_codes<Block>::value(packets_[i], w + 1));
  }

  const Block* rows_[geometry::passes];
  coded_packet packets_[geometry::passes];
  bool there_[geometry::passes];
  int columns_;
};

/// The loader of weights whose rows run along the sum, for products of values of S.
template <class S, class Operand, int Rows, int Depth, int Threads>
using weight_loader =
    std::conditional_t<std::is_same_v<typename Operand::value_type, S>, k_major_loader<Operand, Rows, Depth, Threads>,
                       block_loader<S, Operand, Rows, Depth, Threads>>;

} // namespace hmoe::backends::cuda_detail
