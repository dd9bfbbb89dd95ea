// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/backends/cuda/schedule.cuh>

#include "cuda/device_array.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <vector>

using namespace hmoe::backends::cuda_detail;
using cuda_checks::device_array;
using hmoe::index_t;

// Not in an unnamed namespace: kernels are named after it.
/// Counts how often each tile is computed, and by its place.
struct count_tiles {
  using value_type = float;
  static constexpr block_shape shape{32, 16, 8, 1, 1, 2};
  index_t* counts; ///< of expert i from firsts[i] on, by rows of tiles
  const index_t* firsts;
  index_t columns; ///< of tiles of each expert

  __device__ void operator()(const bank_rows&, const tile_place& place, int, float*) const {
    if (threadIdx.x == 0)
      atomicAdd(counts + firsts[place.expert] + static_cast<index_t>(place.row / shape.m) * columns +
                    static_cast<index_t>(place.column / shape.n),
                1U);
  }
};

namespace {

/// Tiles are computed where there are few.
void check(std::size_t experts, std::uint64_t seed, std::size_t most_rows = 100) {
  support::random_source random(seed);
  constexpr index_t d = 40;
  std::vector<index_t> offsets{5}, widths; // slots of other banks come before
  for (std::size_t e = 0; e < experts; ++e) {
    offsets.push_back(offsets.back() + static_cast<index_t>(e % 4 == 3 ? 0 : random.size(0, most_rows)));
    widths.push_back(static_cast<index_t>(random.size(1, 20)));
  }
  const device_array device_offsets(offsets), device_widths(widths);
  const bank_rows bank{device_offsets.data(), device_widths.data(), static_cast<index_t>(experts)};
  device_array<std::byte> workspace(ffn_workspace_bytes(experts));
  const product_sizes down = in_tiles_of<count_tiles::shape>(all_rows, fixed_size(d), widths_times(1)),
                      gradient = in_tiles_of<count_tiles::shape>(widths_times(2), fixed_size(d), all_rows);
  const schedule_arrays schedules[]{schedule_arrays::in(workspace.data(), experts, 0),
                                    schedule_arrays::in(workspace.data(), experts, 1)};
  launch_schedules(nullptr, bank, schedule_request<2>{{down, gradient}, {schedules[0], schedules[1]}});
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);

  const auto rows = [&](std::size_t e) { return offsets[e + 1] - offsets[e]; };
  const auto read = [&](const index_t* from, std::size_t count) {
    std::vector<index_t> values(count);
    REQUIRE(cudaMemcpy(values.data(), from, count * sizeof(index_t), cudaMemcpyDeviceToHost) == cudaSuccess);
    return values;
  };
  constexpr index_t columns = 3; // 40 columns in tiles of 16
  for (const bool by_width : {true, false}) {
    const schedule_arrays& schedule = schedules[by_width ? 0 : 1];
    const auto terms = [&](std::size_t e) { return by_width ? widths[e] : rows(e); };
    const auto tiles_m = [&](std::size_t e) {
      return rows(e) == 0 ? 0 : ((by_width ? rows(e) : 2 * widths[e]) + 31) / 32;
    };
    std::vector<index_t> order(experts), firsts{0};
    std::iota(order.begin(), order.end(), 0U);
    std::stable_sort(order.begin(), order.end(), [&](index_t a, index_t b) { return terms(a) > terms(b); });
    std::vector<index_t> first_of(experts);
    for (const index_t e : order) {
      first_of[e] = firsts.back();
      firsts.push_back(firsts.back() + tiles_m(e) * columns);
    }
    CHECK(read(schedule.order, experts) == order);
    CHECK(read(schedule.first_tiles, experts + 1) == firsts);

    if (most_rows > 100)
      continue;
    const device_array device_firsts(first_of);
    device_array<index_t> counts(std::vector<index_t>(firsts.back() + 1));
    launch_tiles(nullptr, {4, 80}, count_tiles{counts.data(), device_firsts.data(), columns}, bank,
                 by_width ? down : gradient, schedule, "count_tiles");
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    std::vector<index_t> once(firsts.back(), 1U);
    once.push_back(0);
    CHECK(counts.download() == once);
  }
}

TEST_CASE("A schedule has each tile once, those of the dearest experts first [race]") {
  check(1, 1);
  check(7, 2);
  check(64, 3);
}
TEST_CASE("A schedule of more experts than threads") { check(300, 4); }
TEST_CASE("Experts are ordered by sums of any length [race]") { // by one, two and three times eight bits
  check(70, 5, 5000);
  check(600, 6, 500'000);
  check(1100, 7, 300); // some of the same length, and three rounds to find one
}

TEST_CASE("The number of stages is what fits into the shared memory of a multiprocessor") {
  constexpr block_shape large = product_tiles<hmoe::bfloat16>().many, small = product_tiles<hmoe::bfloat16>().few,
                        largest = product_tiles<hmoe::bfloat16>().most;
  static_assert(large.stage_bytes(2) == 16 * 1024 && large.threads() == 128);
  CHECK(pipeline_stages(80, large, 2) == 4);
  CHECK(pipeline_stages(86, large, 2) == 3);
  CHECK(pipeline_stages(90, large, 2) == 4);
  CHECK(pipeline_stages(80, largest, 2) == 4); // 96 KiB of 164
  for (const int capability : {80, 86, 87, 89, 90, 100, 103, 110, 120, 121, 999})
    for (const block_shape& shape : {large, small, largest}) {
      const int stages = pipeline_stages(capability, shape, 2);
      CHECK(stages >= 2);
      CHECK(shape.blocks * (stages * shape.stage_bytes(2) + 1024) <= shared_memory_of(capability));
    }
}

} // namespace
