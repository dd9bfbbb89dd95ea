// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <cstdint>

namespace hmoe::backends::cuda_detail {

/// A step of an operand in shared memory: Rows rows of Columns values in packets of 16 bytes, which are what cp.async
/// writes and ldmatrix reads. KMajor: a row is a row (or column) of the product, and runs along the sum; otherwise a
/// row is a term of the sum. Pieces are permuted within a row such that whatever a warp reads at once lies in different
/// banks: eight rows at one packet for ldmatrix, four rows at two packets for the scalar loads of 32-bit values.
template <class S, int Rows, int Columns, bool KMajor> struct shared_tile {
  using value_type = S;
  static constexpr bool k_major = KMajor;
  static constexpr int rows = Rows, columns = Columns;
  static constexpr int packet = 16 / static_cast<int>(sizeof(S)), packets = Columns / packet;
  static constexpr int size = Rows * Columns;
  static_assert(Columns % packet == 0 && (packets & (packets - 1)) == 0 && packets >= 2);

  S* values;

  [[nodiscard]] __device__ static constexpr int permute(int row, int p) {
    if constexpr (sizeof(S) == 4 && !KMajor)
      return p ^ ((row & 3) * 2 & (packets - 1));
    else if constexpr (packets >= 8)
      return p ^ (row & 7);
    else // several rows lie in one line of 128 bytes
      return p ^ (row / (8 / packets) & (packets - 1));
  }
  [[nodiscard]] __device__ S* at(int row, int column) const {
    return values + (row * packets + permute(row, column / packet)) * packet + column % packet;
  }
};

[[nodiscard]] __device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

/// Copies `bytes` (at most 16) from an aligned address and fills the rest of 16 with zeros, in the background.
__device__ inline void copy_async(void* shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
}
/// Copies 16 bytes from an aligned address, in the background.
__device__ inline void copy_async(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}
/// Ends a group of copies.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `pending` (0 … 3) groups of this thread are under way.
__device__ inline void wait_for_copies(int pending) {
  if (pending == 0)
    asm volatile("cp.async.wait_group 0;" ::: "memory");
  else if (pending == 1)
    asm volatile("cp.async.wait_group 1;" ::: "memory");
  else if (pending == 2)
    asm volatile("cp.async.wait_group 2;" ::: "memory");
  else
    asm volatile("cp.async.wait_group 3;" ::: "memory");
}

/// Four blocks of eight rows of 16 bytes; lane l gives the address of row l mod 8 of block l / 8. Lane l gets of each
/// block the l mod 4-th word of row l / 4.
__device__ inline void load_blocks(std::uint32_t (&words)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
}
/// The same for blocks of 8 × 8 16-bit values, transposed.
__device__ inline void load_blocks_transposed(std::uint32_t (&words)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_address(row))
               : "memory");
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
