// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/shared_tile.cuh>
#include <hmoe/core/scalar.hpp>

#include <cstdint>
#include <type_traits>

/// Atoms: how a warp multiplies 16 rows by 16 columns over a few terms of the sum. Each has
///   k                              terms of one step
///   unroll                         steps that the compiler writes out: enough to hide what a step waits for
///   a_fragment load_a(tile, m, k)  16 rows from m on of an operand's shared_tile, terms from k on
///   b_fragment load_b(tile, n, k)  16 columns
///   multiply(sums, a, b)           sums[c][·]: columns 8c … 8c + 7
/// Lane l holds sums[c][0], [1]: row l / 4, columns 8c + 2 (l mod 4) and the next; [2], [3]: row l / 4 + 8. Terms are
/// added in ascending order of steps.
namespace hmoe::backends::cuda_detail {

[[nodiscard]] __device__ inline int mma_lane() { return static_cast<int>(threadIdx.x % 32); }

/// What a lane has of 16 rows (or columns) over one step, whose terms fill 32 bytes: four blocks of 8 rows by 16 bytes.
struct tensor_fragment {
  std::uint32_t words[4];
};
/// From tiles whose rows run along the sum: blocks first down the rows for A, first along the sum for B.
template <class Tile> __device__ void load_rows_a(tensor_fragment& a, const Tile& tile, int m, int k0) {
  const int l = mma_lane();
  load_blocks(a.words, tile.at(m + l % 16, k0 + l / 16 * Tile::packet));
}
template <class Tile> __device__ void load_rows_b(tensor_fragment& b, const Tile& tile, int n, int k0) {
  const int l = mma_lane();
  load_blocks(b.words, tile.at(n + l % 8 + l / 16 * 8, k0 + l / 8 % 2 * Tile::packet));
}

/// mma.sync m16n8k16 on bfloat16 or half.
template <class S> struct tensor_atom_16 {
  using value_type = S;
  static constexpr int k = 16, unroll = 4;
  using a_fragment = tensor_fragment;
  using b_fragment = tensor_fragment;

  template <class Tile> [[nodiscard]] __device__ static a_fragment load_a(const Tile& tile, int m, int k0) {
    const int l = mma_lane();
    a_fragment a;
    if constexpr (Tile::k_major)
      load_rows_a(a, tile, m, k0);
    else
      load_blocks_transposed(a.words, tile.at(k0 + l % 8 + l / 16 * 8, m + l / 8 % 2 * 8));
    return a;
  }
  template <class Tile> [[nodiscard]] __device__ static b_fragment load_b(const Tile& tile, int n, int k0) {
    const int l = mma_lane();
    b_fragment b;
    if constexpr (Tile::k_major)
      load_rows_b(b, tile, n, k0);
    else
      load_blocks_transposed(b.words, tile.at(k0 + l % 16, n + l / 16 * 8));
    return b;
  }
  __device__ static void multiply(float (&sums)[2][4], const a_fragment& a, const b_fragment& b) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float(&s)[4] = sums[c];
      if constexpr (std::is_same_v<S, bfloat16>)
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
            : "r"(a.words[0]), "r"(a.words[1]), "r"(a.words[2]), "r"(a.words[3]), "r"(b.words[2 * c]),
              "r"(b.words[2 * c + 1]));
      else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
                     : "r"(a.words[0]), "r"(a.words[1]), "r"(a.words[2]), "r"(a.words[3]), "r"(b.words[2 * c]),
                       "r"(b.words[2 * c + 1]));
    }
  }
};

/// mma.sync m16n8k8 on floats rounded to tf32 (10 fraction bits, to nearest, ties away from zero).
struct tensor_atom_tf32 {
  using value_type = float;
  static constexpr int k = 8, unroll = 4;
  using a_fragment = tensor_fragment;
  using b_fragment = tensor_fragment;

  template <class Tile> [[nodiscard]] __device__ static a_fragment load_a(const Tile& tile, int m, int k0) {
    const int l = mma_lane();
    a_fragment a;
    if constexpr (Tile::k_major) {
      load_rows_a(a, tile, m, k0);
    } else {
#pragma unroll
      for (int w = 0; w < 4; ++w)
        a.words[w] = __float_as_uint(*tile.at(k0 + l % 4 + w / 2 * 4, m + l / 4 + w % 2 * 8));
    }
    round_words(a.words);
    return a;
  }
  template <class Tile> [[nodiscard]] __device__ static b_fragment load_b(const Tile& tile, int n, int k0) {
    const int l = mma_lane();
    b_fragment b;
    if constexpr (Tile::k_major) {
      load_rows_b(b, tile, n, k0);
    } else {
#pragma unroll
      for (int w = 0; w < 4; ++w)
        b.words[w] = __float_as_uint(*tile.at(k0 + l % 4 + w % 2 * 4, n + l / 4 + w / 2 * 8));
    }
    round_words(b.words);
    return b;
  }
  __device__ static void multiply(float (&sums)[2][4], const a_fragment& a, const b_fragment& b) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float(&s)[4] = sums[c];
      asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                   "{%0, %1, %2, %3};"
                   : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
                   : "r"(a.words[0]), "r"(a.words[1]), "r"(a.words[2]), "r"(a.words[3]), "r"(b.words[2 * c]),
                     "r"(b.words[2 * c + 1]));
    }
  }

private:
  __device__ static void round_words(std::uint32_t (&words)[4]) {
#pragma unroll
    for (std::uint32_t& w : words)
      asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(w) : "f"(__uint_as_float(w)));
  }
};

/// Plain multiply-adds on floats, with the sums in the places where the tensor cores have them.
struct fma_atom {
  using value_type = float;
  static constexpr int k = 4, unroll = 1;
  struct a_fragment {
    float rows[2][4];
  };
  struct b_fragment {
    float columns[2][2][4];
  };

  template <class Tile> [[nodiscard]] __device__ static a_fragment load_a(const Tile& tile, int m, int k0) {
    a_fragment a;
#pragma unroll
    for (int r = 0; r < 2; ++r)
      load_terms(a.rows[r], tile, m + mma_lane() / 4 + 8 * r, k0);
    return a;
  }
  template <class Tile> [[nodiscard]] __device__ static b_fragment load_b(const Tile& tile, int n, int k0) {
    b_fragment b;
#pragma unroll
    for (int c = 0; c < 4; ++c)
      load_terms(b.columns[c / 2][c % 2], tile, n + c / 2 * 8 + mma_lane() % 4 * 2 + c % 2, k0);
    return b;
  }
  __device__ static void multiply(float (&sums)[2][4], const a_fragment& a, const b_fragment& b) {
#pragma unroll
    for (int i = 0; i < k; ++i)
#pragma unroll
      for (int c = 0; c < 2; ++c)
#pragma unroll
        for (int s = 0; s < 4; ++s)
          sums[c][s] = fmaf(a.rows[s / 2][i], b.columns[c][s % 2][i], sums[c][s]);
  }

private:
  template <class Tile> __device__ static void load_terms(float (&terms)[4], const Tile& tile, int row, int k0) {
    if constexpr (Tile::k_major) {
      const float4 four = *reinterpret_cast<const float4*>(tile.at(row, k0));
      terms[0] = four.x, terms[1] = four.y, terms[2] = four.z, terms[3] = four.w;
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        terms[i] = *tile.at(k0 + i, row);
    }
  }
};

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
