// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/backends/simd/work_pieces.hpp>
#include <hmoe/execution/context.hpp>

#include <doctest/doctest.h>

#include <utility>
#include <vector>

using namespace hmoe;
using namespace hmoe::backends::simd_detail;

namespace {

std::vector<work_piece> cut(const std::vector<divisible_work>& work, const piece_size& size) {
  const context ctx{backends::reference{}};
  const workspace::scope scope(ctx.workspace());
  std::vector<work_piece> pieces;
  run_in_pieces(ctx, vector_view<const divisible_work>(work), [&](const work_piece& w) { pieces.push_back(w); }, size);
  return pieces;
}

} // namespace

TEST_CASE("every unit of work is in one piece, and the costliest pieces come first") {
  const std::vector<divisible_work> work{
      {0, 0, 3, 1.0}, {1, 0, 0, 5.0}, {2, 1, 1000, 7.0}, {3, 0, 1, 20000.0}, {4, 1, 17, 30.0}};
  const auto pieces = cut(work, {10, 100});
  std::vector<std::vector<int>> done;
  for (const auto& w : work)
    done.emplace_back(w.units, 0);
  double before = pieces.front().cost;
  for (const work_piece& p : pieces) {
    CHECK(p.kind == work[p.chunk].kind);
    CHECK(p.cost == static_cast<double>(p.count) * work[p.chunk].unit_cost);
    CHECK(p.cost <= before);
    before = p.cost;
    for (std::size_t i = p.first; i < p.first + p.count; ++i)
      ++done[p.chunk][i];
  }
  for (const auto& units : done)
    for (const int times : units)
      CHECK(times == 1);
}

TEST_CASE("work that dominates is cut, pieces are neither smaller nor larger than they should be") {
  // One huge expert among a hundred tiny ones.
  std::vector<divisible_work> work{{0, 0, 1000, 1000.0}};
  for (std::size_t c = 1; c <= 100; ++c)
    work.push_back({c, 0, 4, 10.0});
  const auto pieces = cut(work, {50, 500});
  const double target = (1000.0 * 1000 + 100 * 4 * 10) / 50;
  std::size_t of_huge = 0, of_tiny = 0;
  for (const work_piece& p : pieces) {
    CHECK(p.cost <= target);
    ++(p.chunk == 0 ? of_huge : of_tiny);
  }
  CHECK(of_huge == 50);
  CHECK(of_tiny == 100);

  CHECK(cut({{0, 0, 1000, 1.0}}, {50, 500}).size() == 2); // cut no finer than is worth it
  CHECK(cut({{0, 0, 2, 1e9}}, {50, 500}).size() == 2);    // nor finer than its units
  CHECK(cut({}, {50, 500}).empty());
}
