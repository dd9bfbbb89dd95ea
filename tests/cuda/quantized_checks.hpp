// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/device_ffn.hpp>
#include <hmoe/core/quantized_block.hpp>
#include <hmoe/experts/glu.hpp>

#include "cuda/forward_checks.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <utility>
#include <vector>

namespace cuda_checks {

using quantized_glu = experts::glu_bank<float, experts::silu>;

/// A bank whose matrices are in blocks, or floats that have yet to be quantised. Behind the end of a row blocks have
/// ones, which must not count. The bank gets the weights as they are read back, rounded to S.
template <class Block, class S> class quantized_source {
public:
  static constexpr std::size_t lanes = 2;
  quantized_source(quantized_glu& bank, bool in_blocks) : bank_(&bank), original_(bank), in_blocks_(in_blocks) {
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

  quantized_glu* bank_;
  quantized_glu original_;
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
void check_quantized(std::size_t d, std::vector<std::size_t> widths, const forward_case& batch, bool in_blocks) {
  quantized_glu bank = random_weights(quantized_glu(d, std::move(widths), experts::biases::all));
  const quantized_source<Block, S> source(bank, in_blocks);
  const quantized_weights<Block> weights{device::device_ffn<2, Block>(executors::cuda_stream{}, source)};
  const device_weights<S, 2> decoded(bank.weights(), experts_before);
  CHECK(check_forward<2, S>(bank, weights, bank.gate_function(), batch, {}) ==
        check_forward<2, S>(bank, decoded, bank.gate_function(), batch, {}));
}

} // namespace cuda_checks
