// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/operand.cuh>
#include <hmoe/core/config.hpp>

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>

/// What a router multiplies to get logits, and how the sum over d is cut into parts:
///   logits[t, j] = Σ_c x[t, c] W[j, c] (+ b[j]),  gate_logits[t, j] = Σ_c x[t, c] v[j, c]
namespace hmoe::backends::cuda_detail {

/// The rows that make logits, and behind them those that make gates of shared experts, as an operand of a loader.
struct projection_rows {
  using value_type = float;
  const float *weight, *shared_gate;
  int experts, count, columns; ///< columns: d

  [[nodiscard]] __device__ const float* row(int r) const {
    if (r < experts)
      return weight + static_cast<std::size_t>(r) * static_cast<std::size_t>(columns);
    return r < count ? shared_gate + static_cast<std::size_t>(r - experts) * static_cast<std::size_t>(columns)
                     : nullptr;
  }
  [[nodiscard]] __device__ const float* base() const { return weight; }
  [[nodiscard]] __device__ bool aligned() const {
    const auto stride = static_cast<std::size_t>(columns);
    return is_aligned(weight, stride) && (count == experts || is_aligned(shared_gate, stride));
  }
};
template <class View> [[nodiscard]] projection_rows projection_of(const View& router) noexcept {
  const index_t gates = router.shared_gate == nullptr ? 0 : router.shared;
  return {router.weight, router.shared_gate, static_cast<int>(router.experts), static_cast<int>(router.experts + gates),
          static_cast<int>(router.d)};
}
/// Tokens [tokens × d] as an operand.
template <class S>
[[nodiscard]] matrix_rows<S> token_rows(const S* x, std::size_t stride, index_t tokens, index_t d) noexcept {
  return {x, stride, static_cast<int>(tokens), static_cast<int>(d)};
}

/// Columns of the projection: logits, and the gates of shared experts.
template <class View> [[nodiscard]] std::size_t projection_columns_of(const View& router) noexcept {
  return std::size_t{router.experts} + (router.shared_gate == nullptr ? 0 : router.shared);
}

[[nodiscard]] constexpr unsigned blocks_of(std::size_t count, std::size_t per_block) noexcept {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

/// A logit is the sum of its groups of 1,024 terms, a group the sum of its parts of 128, each in ascending order: the
/// order depends on d only. With few tokens each part has a block of its own, with many each group; who adds up the
/// rest then, a block or the kernel that reads the sums, changes no bit. So few tokens do not wait for a chain over d.
struct logit_parts {
  static constexpr std::size_t part_terms = 128, parts_of_group = 8, group_terms = part_terms * parts_of_group;
  static constexpr std::size_t tile = 64;           ///< tokens, and columns, of a block
  static constexpr std::size_t enough_blocks = 128; ///< with as many for groups, parts need none of their own

  std::size_t tokens, columns, d;
  bool by_part; ///< whether a block makes the sum of a part, or of a group

  /// `columns`: experts and gates.
  [[nodiscard]] static logit_parts of(std::size_t tokens, std::size_t columns, std::size_t d) noexcept {
    return {tokens, columns, d, tokens <= most_tokens_by_part(columns, d)};
  }
  [[nodiscard]] static std::size_t most_tokens_by_part(std::size_t columns, std::size_t d) noexcept {
    const std::size_t for_each_tile = std::size_t{blocks_of(columns, tile)} * blocks_of(d, group_terms);
    return for_each_tile == 0 ? 0 : (blocks_of(enough_blocks, for_each_tile) - 1) * tile;
  }
  [[nodiscard]] std::size_t terms() const noexcept { return by_part ? part_terms : group_terms; }
  [[nodiscard]] std::size_t sums() const noexcept { return blocks_of(d, terms()); } ///< for each logit

  /// Floats to reserve for up to so many tokens. Few tokens can need more than many.
  [[nodiscard]] static std::size_t values(std::size_t tokens, std::size_t columns, std::size_t d) noexcept {
    const std::size_t few = std::min(tokens, most_tokens_by_part(columns, d));
    return columns * std::max(few * blocks_of(d, part_terms), tokens * blocks_of(d, group_terms));
  }
};

/// The sums that a projection left, as the next kernel reads them.
struct logit_sums {
  float* values; ///< [count × tokens × columns]
  index_t count, tokens, columns, experts;
  bool by_part;
  const float* bias;  ///< [experts], or null
  float* gate_logits; ///< [tokens × (columns − experts)], written by the kernel that routes the token

  /// The logit of column j, or behind them that of gate j − experts.
  [[nodiscard]] __device__ float operator()(index_t token, index_t j) const {
    constexpr index_t at_once = logit_parts::parts_of_group;
    const std::size_t step = std::size_t{tokens} * columns;
    const float* next = values + std::size_t{token} * columns + j;
    float sum = 0;
#pragma unroll 4 // many loads on their way at once
    for (index_t first = 0; first < count; first += at_once) {
      float group[at_once];
#pragma unroll
      for (index_t i = 0; i < at_once; ++i, next += step)
        group[i] = first + i < count ? *next : 0.0F;
      if (by_part) {
        float parts = 0;
#pragma unroll
        for (const float part : group)
          parts += part;
        sum += parts;
      } else {
#pragma unroll
        for (const float part : group)
          sum += part;
      }
    }
    return bias != nullptr && j < experts ? sum + bias[j] : sum;
  }
  __device__ void write_gate(index_t token, index_t j) const {
    gate_logits[std::size_t{token} * (columns - experts) + j - experts] = (*this)(token, j);
  }
};

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
