// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/glu.hpp>

#include "support/guarded_workspace.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <vector>

namespace formats = hmoe::backends::formats;
using hmoe::matrix;
using hmoe::backends::simd;
using hmoe::backends::simd_detail::work_sizes;
using rows_of_experts = std::vector<std::size_t>;

namespace {

template <class Format> auto packed_bank(std::size_t d, const rows_of_experts& widths) {
  hmoe::experts::glu_bank<float, hmoe::experts::silu> bank(d, widths, hmoe::experts::biases::all);
  support::random_source random(81);
  bank.visit_parameters(
      [&](const hmoe::parameter_info&, hmoe::matrix_view<float> view) { support::fill(random, view, 0.5); });
  return simd<>::pack<Format>(bank);
}

/// y for rows[e] rows of each expert.
template <class Context, class Bank>
matrix<float> forward(const Context& ctx, const Bank& bank, const rows_of_experts& rows, const work_sizes& sizes) {
  std::size_t all = 0;
  for (const std::size_t count : rows)
    all += count;
  support::random_source random(82);
  const auto x = support::random_matrix<float>(random, all, bank.d_model());
  matrix<float> y(all, bank.d_model());
  std::vector<hmoe::expert_rows<float>> groups;
  for (std::size_t e = 0, first = 0; e < rows.size(); first += rows[e++])
    groups.push_back({e, rows[e], x.view().row_block(first, rows[e]), y.view().row_block(first, rows[e])});
  const typename Context::workspace_scope scope(ctx.workspace());
  hmoe::backends::simd_detail::packed_forward<typename Bank::experts_type>::run(ctx, bank,
                                                                                {groups.data(), groups.size()}, sizes);
  return y;
}

struct memory_use {
  std::size_t peak, announced;
};
/// A pass in what is announced for it.
template <class Bank>
memory_use run(const Bank& bank, const rows_of_experts& rows, std::size_t threads,
               const work_sizes& sizes = hmoe::backends::simd_detail::packed_work_sizes) {
  std::size_t all = 0;
  for (const std::size_t count : rows)
    all += count;
  hmoe::workspace dry{hmoe::dry_run{}};
  hmoe::backends::simd_detail::packed_forward<typename Bank::experts_type>::lay_out(
      hmoe::context{simd<>{}, hmoe::executors::serial{}, dry}, bank, {all, all}, sizes);
  const std::size_t announced = dry.peak();
  support::guarded_workspace memory(announced);
  const hmoe::executors::openmp executor{threads};
  const matrix<float> ours = forward(support::guarded_context{simd<>{}, executor, memory}, bank, rows, sizes);
  CHECK(memory.intact());
  // In other pieces and more memory: the same bits.
  const matrix<float> expected =
      forward(hmoe::context{simd<>{}}, bank, rows, {64U << 20U, 1000, 100000, 1, std::size_t{1} << 40U});
  CHECK(std::equal(ours.data(), ours.data() + ours.size(), expected.data()));
  return {memory.peak(), announced};
}

} // namespace

TEST_CASE_TEMPLATE("packed experts take the announced memory and no more: ragged shapes, any sizes of work", Format,
                   formats::f32, formats::bf16, formats::q8, formats::q4) {
  support::random_source random(83);
  for (int i = 0; i < 20; ++i) {
    rows_of_experts widths(random.size(1, 8));
    rows_of_experts rows(widths.size());
    for (std::size_t& width : widths)
      width = random.size(1, random.size(1, 200));
    for (std::size_t& count : rows)
      count = random.size(0, 3) == 0 ? 0 : random.size(1, random.size(1, 300));
    const auto bank = packed_bank<Format>(random.size(1, 70), widths);
    CAPTURE(i);
    run(bank, rows, random.size(1, 3));
    for (const std::size_t batch_bytes : {std::size_t{1}, std::size_t{10'000}, std::size_t{200'000}})
      for (const std::size_t least_rows : {1U, 17U}) {
        CAPTURE(batch_bytes);
        CAPTURE(least_rows);
        run(bank, rows, 1, {batch_bytes, least_rows, 100, random.size(1, 100), random.size(1, 100'000)});
      }
  }
}

TEST_CASE("packed experts take 8 MB of rows at a time, which is what is announced") {
  constexpr std::size_t megabyte = 1U << 20U;
  const auto bank = packed_bank<formats::f32>(8, {500, 480, 512, 1, 490, 501, 500, 500, 470, 512, 505, 500});
  const memory_use use = run(bank, rows_of_experts(12, 400), 2);
  CHECK(use.peak > 7 * megabyte);
  CHECK(use.announced < 9 * megabyte);
  // One row for each of many tiny experts, and the only rows of a wide one, of which there are always 96.
  static_cast<void>(run(packed_bank<formats::bf16>(1, rows_of_experts(500, 1)), rows_of_experts(500, 1), 1));
  CHECK(run(packed_bank<formats::f32>(1, {1, 30'000}), {1, 96}, 2).peak > 8 * megabyte);
}
