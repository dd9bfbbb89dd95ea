// SPDX-License-Identifier: MIT
// Passes over whole banks in memory of the size that is laid out for them.
#include <hmoe/backends/simd.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/execution/dry_context.hpp>

#include "backends/simd/ffn_batches.hpp"
#include "support/guarded_workspace.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

namespace {

using hmoe::experts::biases;
using load = std::vector<std::size_t>;

/// Runs all passes in what is announced for them; gives the most that they had in use, and what was announced.
struct memory_use {
  std::size_t peak, announced;
};
template <class T> memory_use run(const support::glu_and_mlp<T>& experts, const load& rows, std::size_t threads) {
  const hmoe::context like{support::whole_banks{}, hmoe::executors::openmp{threads}};
  const hmoe::dry_context dry(like);
  const hmoe::row_limits limits{std::accumulate(rows.begin(), rows.end(), std::size_t{0}), std::ranges::max(rows)};
  experts.lay_out_forward_rows(dry, limits);
  experts.lay_out_backward_rows(dry, limits);
  const std::size_t announced =
      dry.workspace().peak() + 2 * hmoe::aligned_bytes<hmoe::expert_rows<T>>(rows.size()); // empty rows in the lists
  support::guarded_workspace memory(announced);
  const support::expert_passes<T> ours(
      support::guarded_context{support::whole_banks{}, hmoe::executors::openmp{threads}, memory}, experts, rows);
  CHECK(memory.intact());

  const support::expert_passes<T> expected(hmoe::context{support::products_only{}}, experts, rows);
  CHECK(support::all_same_bits(ours.y, expected.y));
  CHECK(support::all_same_bits(ours.unrecorded, expected.y));
  CHECK(support::all_same_bits(ours.saved, expected.saved));
  CHECK(support::all_same_bits(ours.dx, expected.dx));
  CHECK(support::all_same_bits(ours.gradients, expected.gradients));
  return {memory.peak(), announced};
}

} // namespace

TEST_CASE_TEMPLATE("training takes the announced memory and no more: ragged shapes", T, float, double) {
  support::random_source random(71);
  for (int i = 0; i < 12; ++i) {
    load glu(random.size(1, 5)), mlp(random.size(1, 5)), rows(glu.size() + mlp.size());
    for (auto* widths : {&glu, &mlp})
      for (std::size_t& width : *widths)
        width = random.size(1, random.size(1, 300));
    for (std::size_t& count : rows)
      count = random.size(0, 3) == 0 ? 0 : random.size(1, random.size(1, 400));
    const std::size_t d = random.size(1, 40), threads = random.size(1, 3);
    CAPTURE(i);
    run(support::make_experts<T>(d, glu, mlp, i % 2 == 0 ? biases::all : biases::none), rows, threads);
  }
}

TEST_CASE_TEMPLATE("training takes the announced memory and no more: a row for each of many tiny experts", T, float,
                   double) {
  for (const std::size_t count : {1U, 7U, 300U}) {
    CAPTURE(count);
    const auto experts = support::make_experts<T>(1, load(count, 1), load(2 * count, 3), biases::all);
    load rows(3 * count, 1);
    run(experts, rows, 1);
    rows[0] = 0;
    run(experts, rows, 3);
    run(experts, load(3 * count, 0), 1);
  }
}

TEST_CASE_TEMPLATE("training of wide experts takes 16 MB at a time, which is what is announced", T, float, double) {
  load widths(15, 500);
  widths[3] = 1;
  widths[7] = 509;
  const auto experts = support::make_experts<T>(8, widths, widths, biases::all);
  constexpr std::size_t megabyte = 1U << 20U;
  const memory_use use = run(experts, load(30, 150), 2);
  CHECK(use.peak > 14 * megabyte);
  CHECK(use.announced < 18 * megabyte);
}

TEST_CASE("training takes the announced memory and no more: 256 rows of an expert are more than 16 MB") {
  const auto experts = support::make_experts<float>(2, {6000, 5}, {9001}, biases::none);
  CHECK(run(experts, {700, 20, 0}, 2).peak > 16U << 20U);
  run(experts, {256, 300, 257}, 2);
}
