// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/backends/cuda/device_policies.hpp>
#include <hmoe/backends/cuda/warp_selection.cuh>

#include "device_array.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <string>
#include <vector>

using namespace hmoe;
namespace kernels = hmoe::backends::cuda_detail;

// Kernels stand outside of unnamed namespaces, whose mangled names differ between compilations.
template <class Selection>
__global__ void choose(Selection select, const float* rows, unsigned experts, unsigned* bits) {
  extern __shared__ float memory[];
  for (unsigned e = threadIdx.x; e < experts; e += 32)
    memory[e] = rows[blockIdx.x * experts + e];
  __syncwarp();
  bits[blockIdx.x * 32 + threadIdx.x] =
      kernels::warp_select(select, kernels::warp_row{memory, experts, memory + experts});
}

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();

/// Rows of N values in which there is something to get wrong.
std::vector<std::vector<float>> rows_of(std::size_t experts, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(0, 1);
  std::vector<std::vector<float>> rows;
  const auto add = [&](auto&& value) {
    auto& row = rows.emplace_back(experts);
    for (std::size_t e = 0; e < experts; ++e)
      row[e] = value(e);
  };
  add([&](std::size_t) { return uniform(random); });
  add([&](std::size_t) { return uniform(random) / static_cast<float>(experts); });
  add([&](std::size_t) { return static_cast<float>(random() % 4) / 8; }); // ties
  add([&](std::size_t) { return 1 / static_cast<float>(experts); });      // nothing but ties
  add([&](std::size_t) { return random() % 2 == 0 ? 0.0F : -0.0F; });     // equal, though not in bits
  add([&](std::size_t) { return uniform(random) - 0.5F; });               // a bias may do this
  add([&](std::size_t) { return random() % 3 == 0 ? nan : uniform(random); });
  add([&](std::size_t) { return random() % 3 == 0 ? nan : -infinity; });
  add([&](std::size_t) { return random() % 4 == 0 ? infinity : uniform(random); });
  add([&](std::size_t) { return nan; });
  add([&](std::size_t e) { return e + 1 == experts ? 1.0F : 0.0F; });
  add([&](std::size_t) { return std::numeric_limits<float>::denorm_min() * static_cast<float>(random() % 3); });
  return rows;
}

/// Device and host choose the same of all rows.
template <class Selection> void check(const Selection& selection, std::size_t experts, unsigned seed = 1) {
  using form = kernels::device_selection<Selection>;
  static_assert(kernels::selects_by_warp<typename form::type>);
  const auto rows = rows_of(experts, seed);
  std::vector<float> flat;
  for (const auto& row : rows)
    flat.insert(flat.end(), row.begin(), row.end());
  std::vector<std::byte> parameters(form::bytes(selection));
  form::pack(selection, parameters.data());
  const cuda_checks::device_array<std::byte> device_parameters(parameters);
  const cuda_checks::device_array<float> p(flat);
  const cuda_checks::device_array<unsigned> bits(rows.size() * 32);
  const auto select = form::view(selection, device_parameters.data());
  const auto scratch = static_cast<unsigned>(kernels::warp_scratch(select));
  choose<<<static_cast<unsigned>(rows.size()), 32, (experts + scratch) * sizeof(float)>>>(
      select, p.data(), static_cast<unsigned>(experts), bits.data());
  kernels::require_cuda(cudaGetLastError(), "choose");
  const auto words = bits.download();
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::vector<index_t> expected(experts);
    std::vector<float> memory(routing::selection_scratch(selection, experts));
    expected.resize(routing::select_row(selection, vector_view<const float>(rows[r]), vector_view<index_t>(expected),
                                        vector_view<float>(memory)));
    std::ranges::sort(expected);
    std::vector<index_t> chosen;
    for (index_t e = 0; e < 32 * 32; ++e)
      if ((words[r * 32 + e % 32] >> e / 32 & 1U) != 0)
        chosen.push_back(e);
    INFO("experts ", experts, ", row ", r);
    CHECK(chosen == expected);
  }
}

constexpr std::size_t sizes[] = {1, 2, 3, 8, 31, 32, 33, 64, 100, 128, 200};

} // namespace

TEST_CASE("top_k") {
  for (const std::size_t experts : sizes)
    for (const std::size_t k : {1, 2, 5, 16})
      if (k <= experts)
        check(routing::top_k<>{k}, experts);
  check(routing::top_k<2>{}, 60);
  check(routing::top_k<>{200}, 200);
  check(routing::top_k<>{16}, 512);
  check(routing::top_k<>{8}, 1024);
}

TEST_CASE("top_p and cumulative_threshold") {
  for (const std::size_t experts : sizes)
    for (const double p : {0.05, 0.6, 1.0}) {
      check(routing::top_p{p}, experts);
      check(routing::cumulative_threshold{p}, experts);
      check(routing::cumulative_threshold{p, 3}, experts);
    }
  check(routing::top_p{0.9}, 512);
}

TEST_CASE("threshold and positive") {
  for (const std::size_t experts : sizes) {
    for (const double minimum : {-1.0, 0.0, 0.125, 0.5, 2.0})
      check(routing::threshold{minimum}, experts);
    check(routing::positive{}, experts);
  }
}

TEST_CASE("group_limited") {
  using routing::group_mask;
  using routing::group_score;
  for (const std::size_t groups : {1, 2, 4, 8, 50})
    for (const std::size_t size : {2, 4, 16})
      for (const std::size_t kept : {std::size_t{1}, groups / 2 + 1, groups}) {
        if (kept > groups)
          continue;
        for (const std::size_t k : {std::size_t{1}, std::size_t{2}, kept * size < 8 ? kept * size : 8}) {
          check(routing::group_limited<group_score::best_two, group_mask::excluded>{groups, kept, k}, groups * size);
          check(routing::group_limited<group_score::best_two, group_mask::zero>{groups, kept, k}, groups * size);
          check(routing::group_limited<group_score::best, group_mask::excluded>{groups, kept, k}, groups * size);
          check(routing::group_limited<group_score::best, group_mask::zero>{groups, kept, k}, groups * size);
        }
      }
  check(routing::group_limited<group_score::best, group_mask::zero>{5, 2, 2}, 5);
}

TEST_CASE("one of each kind [race]") {
  check(routing::top_k<>{3}, 40);
  check(routing::top_p{0.6}, 40);
  check(routing::cumulative_threshold{0.6}, 40);
  check(routing::threshold{0.5}, 40);
  check(routing::biased<float, routing::group_limited<>>(40, {4, 2, 3}), 40);
}

TEST_CASE("biased") {
  std::mt19937 random(3);
  const auto fill = [&](auto&& selection) {
    for (float& b : selection.bias())
      b = static_cast<float>(static_cast<int>(random() % 5) - 2) / 8;
    return selection;
  };
  for (const std::size_t experts : {2, 40, 128}) {
    check(fill(routing::biased<float, routing::top_k<>>(experts, {2})), experts);
    check(fill(routing::biased<float, routing::top_p>(experts, {0.7})), experts);
    check(fill(routing::biased<float, routing::threshold>(experts, {0.3})), experts);
  }
  for (unsigned seed = 1; seed < 4; ++seed)
    check(fill(routing::biased<float, routing::group_limited<>>(64, {8, 4, 8})), 64, seed);
}
