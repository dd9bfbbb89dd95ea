// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/core/quantized_block.hpp>
#include <hmoe/experts/glu.hpp>

#include "cuda/forward_checks.hpp"

#include <doctest/doctest.h>

using namespace cuda_checks;

namespace {

using glu = experts::glu_bank<float, experts::silu>;

/// The weights of a bank in blocks on the device. The bank gets the weights as they are read back.
template <class Block, class S> struct quantized_weights {
  std::vector<index_t> widths, out_strides;
  std::vector<std::size_t> in_offsets, out_offsets, in_bias_offsets;
  std::vector<Block> ins, outs;
  std::vector<float> in_biases, out_biases;
  std::size_t widest = 0;
  device_array<Block> in, out;
  device_array<float> in_bias, out_bias;
  device_array<index_t> device_widths, device_out_strides;
  device_array<std::size_t> device_in_offsets, device_out_offsets, device_in_bias_offsets;
  device::ffn_arrays<Block> arrays;

  quantized_weights(glu& bank, std::size_t first_expert) {
    for (std::size_t e = 0; e < bank.size(); ++e) {
      const std::size_t h = bank.width(e);
      widest = std::max(widest, h);
      widths.push_back(static_cast<index_t>(h));
      out_strides.push_back(static_cast<index_t>(blocks(h)));
      in_offsets.push_back(ins.size());
      out_offsets.push_back(outs.size());
      in_bias_offsets.push_back(in_biases.size());
      append(bank.gate(e), ins);
      append(bank.up(e), ins);
      append(bank.down(e), outs);
      for (std::size_t l = 0; l < 2; ++l)
        for (const float b : bank.weights().lane_bias(e, l).row(0))
          in_biases.push_back(b);
      for (const float b : bank.weights().output_bias(e).row(0))
        out_biases.push_back(b);
    }
    in = device_array(ins), out = device_array(outs);
    in_bias = device_array(in_biases), out_bias = device_array(out_biases);
    device_widths = device_array(widths), device_out_strides = device_array(out_strides);
    device_in_offsets = device_array(in_offsets), device_out_offsets = device_array(out_offsets);
    device_in_bias_offsets = device_array(in_bias_offsets);
    arrays = {in.data(),
              out.data(),
              in_bias.data(),
              out_bias.data(),
              device_in_offsets.data(),
              device_out_offsets.data(),
              device_in_bias_offsets.data(),
              device_out_strides.data(),
              device_widths.data(),
              static_cast<index_t>(bank.size()),
              static_cast<index_t>(first_expert),
              static_cast<index_t>(bank.d_model()),
              static_cast<index_t>(blocks(bank.d_model()))};
  }

private:
  static std::size_t blocks(std::size_t columns) { return (columns + quantized_block_size - 1) / quantized_block_size; }
  /// The last block of a row is filled up with ones, which must not count.
  static void append(matrix_view<float> weights, std::vector<Block>& list) {
    for (std::size_t r = 0; r < weights.rows(); ++r)
      for (std::size_t b = 0; b < blocks(weights.cols()); ++b) {
        float values[quantized_block_size];
        const std::size_t first = b * quantized_block_size;
        for (std::size_t i = 0; i < quantized_block_size; ++i)
          values[i] = first + i < weights.cols() ? weights(r, first + i) : 1.0F;
        list.push_back(Block::quantize(values));
        for (std::size_t i = 0; i < quantized_block_size && first + i < weights.cols(); ++i)
          weights(r, first + i) = narrow<S>(list.back().value(i));
      }
  }
};

template <class Block, class S> void check(std::size_t d, std::vector<std::size_t> widths, const forward_case& batch) {
  glu bank = random_weights(glu(d, std::move(widths), experts::biases::all));
  const quantized_weights<Block, S> weights(bank, experts_before);
  check_forward<2, S>(bank, weights, bank.gate_function(), batch, {});
}

template <class Block, class S> void check_all() {
  for (const forward_case& batch : forward_cases)
    check<Block, S>(72, {1, 40, 7, 33, 100}, batch);
  check<Block, S>(39, {9, 70}, {12, load::random, 39});   // tokens without alignment
  check<Block, S>(100, {70}, {260, load::one_expert, 0}); // the tiles for many rows
}

TEST_CASE("Weights in q8 blocks [race]") { check_all<q8_block, bfloat16>(); }
TEST_CASE("Weights in q4 blocks [race]") { check_all<q4_block, bfloat16>(); }
TEST_CASE("Weights in q4 blocks with an offset [race]") { check_all<q4_offset_block, bfloat16>(); }
TEST_CASE("Weights in mxfp4 blocks [race]") { check_all<mxfp4_block, bfloat16>(); }

} // namespace
