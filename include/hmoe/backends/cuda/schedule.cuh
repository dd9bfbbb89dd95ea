// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/ffn_arrays.hpp>
#include <hmoe/backends/cuda/launch.cuh>
#include <hmoe/backends/cuda/tuning.hpp>

#include <cstddef>

/// How the tiles of all experts of a bank reach the multiprocessors, without the host knowing any number of rows: one
/// small kernel orders the experts by the cost of their tiles, dearest first, and counts tiles; then blocks that stay
/// take one tile after the other from a counter. Which block computes a tile changes no bit of it.
namespace hmoe::backends::cuda_detail {

/// Rows and widths of a bank's experts.
struct bank_rows {
  const index_t* offsets; ///< of the plan, from the bank's first expert on
  const index_t* widths;
  index_t experts;

  [[nodiscard]] __device__ index_t first(index_t i) const { return offsets[i]; }
  [[nodiscard]] __device__ index_t rows(index_t i) const { return offsets[i + 1] - offsets[i]; }
  [[nodiscard]] __device__ index_t width(index_t i) const { return widths[i]; }
};

/// A size of an expert's product: rows · per_row + width · per_width + fixed.
struct extent {
  index_t per_row, per_width, fixed;
  [[nodiscard]] __device__ index_t of(index_t rows, index_t width) const {
    return rows * per_row + width * per_width + fixed;
  }
};
inline constexpr extent all_rows{1, 0, 0};
[[nodiscard]] constexpr extent widths_times(std::size_t lanes) noexcept { return {0, static_cast<index_t>(lanes), 0}; }
[[nodiscard]] constexpr extent fixed_size(index_t size) noexcept { return {0, 0, size}; }

/// One product of all experts: m × n sums over `terms`, in tiles.
struct product_sizes {
  extent m, n, terms;
  index_t tile_m, tile_n;

  [[nodiscard]] __device__ index_t tiles_m(index_t rows, index_t width) const {
    return (m.of(rows, width) + tile_m - 1) / tile_m;
  }
  [[nodiscard]] __device__ index_t tiles(index_t rows, index_t width) const {
    return rows == 0 ? 0 : tiles_m(rows, width) * ((n.of(rows, width) + tile_n - 1) / tile_n);
  }
};

template <block_shape Shape>
[[nodiscard]] constexpr product_sizes in_tiles_of(const extent& m, const extent& n, const extent& terms) noexcept {
  return {m, n, terms, static_cast<index_t>(Shape.m), static_cast<index_t>(Shape.n)};
}

struct schedule_arrays {
  index_t* order;       ///< [experts] by descending terms, the lower expert first
  index_t* first_tiles; ///< [experts + 1] number of the first tile of each in this order
  index_t* next_tile;   ///< the counter

  /// Schedule `number` of a workspace of ffn_workspace_bytes(experts).
  [[nodiscard]] static schedule_arrays in(void* workspace, std::size_t experts, std::size_t number) noexcept {
    auto* begin =
        reinterpret_cast<index_t*>(static_cast<std::byte*>(workspace) + number * (ffn_workspace_bytes(experts) / 4));
    return {begin, begin + experts, begin + 2 * experts + 1};
  }
};

template <int Products> struct schedule_request {
  product_sizes sizes[Products];
  schedule_arrays schedules[Products];
};

inline constexpr unsigned schedule_threads = 256;

/// sums[i] = Σ_{j ≤ i} over the threads of the block.
[[nodiscard]] __device__ inline index_t block_inclusive_sum(index_t value) {
  __shared__ index_t warp_sums[schedule_threads / 32];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (unsigned distance = 1; distance < 32; distance *= 2) {
    const index_t below = __shfl_up_sync(0xffffffffU, value, distance);
    value += lane >= distance ? below : 0;
  }
  if (lane == 31)
    warp_sums[warp] = value;
  __syncthreads();
  for (unsigned w = 0; w < warp; ++w)
    value += warp_sums[w];
  __syncthreads();
  return value;
}

/// order = the things 0 … count − 1 by descending key(i), the lower one first; `other` has as much room. A stable radix
/// sort by eight bits at a time, of the bits in which keys can differ: none where all keys are the same.
template <class Key> __device__ void sort_descending(index_t count, const Key& key, index_t* order, index_t* other) {
  constexpr unsigned warps = schedule_threads / 32, digits = 256;
  static_assert(schedule_threads == digits, "a thread for each digit");
  __shared__ index_t least, most, places[digits], counts[warps][digits];
  const unsigned thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  if (thread == 0) {
    least = ~index_t{0};
    most = 0;
  }
  __syncthreads();
  for (index_t i = thread; i < count; i += schedule_threads) {
    atomicMin(&least, key(i));
    atomicMax(&most, key(i));
  }
  __syncthreads();
  const index_t largest = most;
  const int passes = count == 0 || largest == least ? 0 : (39 - __clz(static_cast<int>(largest - least))) / 8;
  for (index_t i = thread; i < count && passes == 0; i += schedule_threads)
    order[i] = i;
  for (int pass = 0; pass < passes; ++pass) {
    const index_t* const from = (passes - pass) % 2 == 0 ? order : other;
    index_t* const to = (passes - pass) % 2 == 0 ? other : order;
    const auto thing = [&](index_t place) { return pass == 0 ? place : from[place]; };
    const auto digit_of = [&](index_t i) { return (largest - key(i)) >> (8 * pass) & (digits - 1); };
    places[thread] = 0;
    __syncthreads();
    for (index_t p = thread; p < count; p += schedule_threads)
      atomicAdd(places + digit_of(thing(p)), 1U);
    __syncthreads();
    const index_t mine = places[thread];
    places[thread] = block_inclusive_sum(mine) - mine; // where those of this digit begin
    for (index_t first = 0; first < count; first += schedule_threads) {
      for (unsigned w = 0; w < warps; ++w)
        counts[w][thread] = 0;
      __syncthreads();
      const bool there = first + thread < count;
      const index_t i = there ? thing(first + thread) : 0, digit = there ? digit_of(i) : digits;
      const unsigned same = __match_any_sync(0xffffffffU, digit);
      const auto before = static_cast<index_t>(__popc(same & ((1U << lane) - 1)));
      if (there && before == 0)
        counts[warp][digit] = static_cast<index_t>(__popc(same));
      __syncthreads();
      index_t place = places[thread];
      for (unsigned w = 0; w < warps; ++w) {
        const index_t more = counts[w][thread];
        counts[w][thread] = place;
        place += more;
      }
      places[thread] = place;
      __syncthreads();
      if (there)
        to[counts[warp][digit] + before] = i;
      __syncthreads();
    }
  }
}

/// Block p makes the schedule of product p.
template <int Products>
__global__ void __launch_bounds__(schedule_threads) make_schedules(bank_rows bank, schedule_request<Products> request) {
  const product_sizes sizes = request.sizes[blockIdx.x];
  const schedule_arrays schedule = request.schedules[blockIdx.x];
  sort_descending(
      bank.experts, [&](index_t i) { return sizes.terms.of(bank.rows(i), bank.width(i)); }, schedule.order,
      schedule.first_tiles);
  __shared__ index_t before;
  __syncthreads();
  if (threadIdx.x == 0) {
    *schedule.next_tile = 0;
    schedule.first_tiles[0] = before = 0;
  }
  __syncthreads();
  for (index_t first = 0; first < bank.experts; first += schedule_threads) {
    const index_t place = first + threadIdx.x;
    index_t tiles = 0;
    if (place < bank.experts) {
      const index_t i = schedule.order[place];
      tiles = sizes.tiles(bank.rows(i), bank.width(i));
    }
    const index_t sum = before + block_inclusive_sum(tiles);
    if (place < bank.experts)
      schedule.first_tiles[place + 1] = sum;
    __syncthreads();
    if (threadIdx.x == schedule_threads - 1)
      before = sum;
    __syncthreads();
  }
}

/// The last place with starts[place] ≤ value, of `count` ≥ 1 ascending starts, the first of which is at most value: by
/// a warp, which looks at 32 of them at once.
[[nodiscard]] __device__ inline index_t last_start_by_warp(const index_t* starts, index_t count, index_t value) {
  index_t low = 0, high = count; // it is among these
  while (high - low > 1) {
    const index_t step = (high - low + 31) / 32, probe = low + threadIdx.x % 32 * step;
    const auto below = __popc(__ballot_sync(0xffffffffU, probe < high && starts[probe] <= value));
    low += static_cast<index_t>(below - 1) * step;
    high = min(high, low + step);
  }
  return low;
}

/// A tile of an expert: its first row and column. It lies in shared memory, and a problem reads it again after the
/// product, so that it takes no registers meanwhile.
struct tile_place {
  index_t expert;
  int row, column;
};

/// The kernel of every grouped product. Problem computes one tile: problem(bank, place, stages, shared).
template <class Problem>
__global__ void __launch_bounds__(Problem::shape.threads(), Problem::shape.blocks)
    run_tiles(const __grid_constant__ Problem problem, bank_rows bank, product_sizes sizes, schedule_arrays schedule,
              int stages) {
  extern __shared__ uint4 shared[];
  __shared__ tile_place place;
  __shared__ index_t taken;
  if (threadIdx.x == 0)
    taken = atomicAdd(schedule.next_tile, 1U);
  for (;;) {
    __syncthreads();
    const index_t tile = taken;
    if (tile >= schedule.first_tiles[bank.experts])
      return;
    __syncthreads(); // everybody has read `taken`
    if (threadIdx.x < 32) {
      const index_t next = threadIdx.x == 0 ? atomicAdd(schedule.next_tile, 1U) : 0; // asked for early
      const index_t p = last_start_by_warp(schedule.first_tiles, bank.experts, tile);
      if (threadIdx.x == 0) {
        taken = next;
        const index_t i = schedule.order[p], local = tile - schedule.first_tiles[p];
        const index_t tiles_m = sizes.tiles_m(bank.rows(i), bank.width(i));
        // Neighbours in time share columns, which are the weights: they come from DRAM once.
        place = {i, static_cast<int>(local % tiles_m * sizes.tile_m), static_cast<int>(local / tiles_m * sizes.tile_n)};
      }
    }
    __syncthreads();
    problem(bank, place, stages, reinterpret_cast<typename Problem::value_type*>(shared));
  }
}

template <int Products>
void launch_schedules(cudaStream_t stream, const bank_rows& bank, const schedule_request<Products>& request) {
  launch{"make_schedules", stream, static_cast<unsigned>(Products), schedule_threads}(make_schedules<Products>, bank,
                                                                                      request);
}

template <class Problem>
void launch_tiles(cudaStream_t stream, const launch_target& target, const Problem& problem, const bank_rows& bank,
                  const product_sizes& sizes, const schedule_arrays& schedule, const char* name) {
  constexpr block_shape shape = Problem::shape;
  constexpr int value_bytes = sizeof(typename Problem::value_type);
  const int stages = pipeline_stages(target.compute_capability, shape, value_bytes);
  const int bytes = stages * shape.stage_bytes(value_bytes);
  require_cuda(cudaFuncSetAttribute(run_tiles<Problem>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
               "reserving ", bytes, " bytes of shared memory for ", name);
  launch{name, stream, static_cast<unsigned>(target.multiprocessors * shape.blocks),
         static_cast<unsigned>(shape.threads()),
         static_cast<std::size_t>(bytes)}(run_tiles<Problem>, problem, bank, sizes, schedule, stages);
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
