// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/backends/simd/pieces.hpp>
#include <hmoe/execution/context.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <tuple>
#include <vector>

using namespace hmoe;
using namespace hmoe::backends::simd_detail;

namespace {

/// Says that it has several workers, and runs task after task.
struct one_of_many {
  std::size_t workers = 2;
  [[nodiscard]] std::size_t concurrency() const noexcept { return workers; }
  template <class Task> void for_each(std::size_t count, Task&& task) const {
    for (std::size_t i = 0; i < count; ++i)
      task(i, std::size_t{0});
  }
};
/// Is asked to do one thing at a time.
struct for_one_task {
  [[nodiscard]] static std::size_t concurrency() noexcept { return 3; }
  template <class Task> void for_each(std::size_t count, Task&& task) const {
    CHECK(count == 1);
    task(std::size_t{0}, std::size_t{2});
  }
};
/// Two kinds of work on a chunk.
using chunk_work = std::array<divisible_work, 2>;

constexpr work_sizes sizes_of(std::size_t pieces, std::size_t least_work) { return {1, 1, 1, pieces, least_work}; }

std::vector<work_piece> cut(const std::vector<chunk_work>& work, const work_sizes& sizes, std::size_t workers = 2) {
  const context ctx{backends::reference{}, one_of_many{workers}};
  std::vector<work_piece> pieces;
  run_phase(
      ctx, vector_view<const chunk_work>(work), sizes, [](const chunk_work& c) { return c; },
      [&](const chunk_work& c, const work_piece& w, std::size_t) {
        CHECK(&c == &work[w.chunk]);
        pieces.push_back(w);
      });
  CHECK(pieces.size() <= most_pieces(2 * work.size(), sizes));
  return pieces;
}
std::vector<chunk_work> one_kind(const std::vector<divisible_work>& work) {
  std::vector<chunk_work> result;
  for (const divisible_work& w : work)
    result.push_back({w, {0, 1.0}});
  return result;
}

} // namespace

TEST_CASE("every unit of work is in one piece, and the costliest pieces come first") {
  const std::vector<chunk_work> work{{{{3, 1.0}, {0, 1.0}}},
                                     {{{0, 5.0}, {0, 1.0}}},
                                     {{{0, 1.0}, {1000, 7.0}}},
                                     {{{1, 20000.0}, {2, 3.0}}},
                                     {{{0, 1.0}, {17, 30.0}}}};
  const auto pieces = cut(work, sizes_of(10, 100));
  std::vector<std::array<std::vector<int>, 2>> done;
  for (const auto& w : work)
    done.push_back({std::vector<int>(w[0].units, 0), std::vector<int>(w[1].units, 0)});
  double before = pieces.front().cost;
  for (const work_piece& p : pieces) {
    CHECK(p.cost == static_cast<double>(p.count) * work[p.chunk][p.kind].unit_cost);
    CHECK(p.cost <= before);
    before = p.cost;
    for (std::size_t i = p.first; i < p.first + p.count; ++i)
      ++done[p.chunk][p.kind][i];
  }
  for (const auto& chunk : done)
    for (const auto& units : chunk)
      for (const int times : units)
        CHECK(times == 1);
}

TEST_CASE("work that dominates is cut, pieces are neither smaller nor larger than they should be") {
  // One huge expert among a hundred tiny ones.
  std::vector<divisible_work> work{{1000, 1000.0}};
  for (std::size_t c = 1; c <= 100; ++c)
    work.push_back({4, 10.0});
  const auto pieces = cut(one_kind(work), sizes_of(50, 500));
  const double target = (1000.0 * 1000 + 100 * 4 * 10) / 50;
  std::size_t of_huge = 0, of_tiny = 0;
  for (const work_piece& p : pieces) {
    CHECK(p.cost <= target);
    ++(p.chunk == 0 ? of_huge : of_tiny);
  }
  CHECK(of_huge == 50);
  CHECK(of_tiny == 100);

  CHECK(cut(one_kind({{1000, 1.0}}), sizes_of(50, 500)).size() == 2); // cut no finer than is worth it
  CHECK(cut(one_kind({{2, 1e9}}), sizes_of(50, 500)).size() == 2);    // nor finer than its units
  CHECK(cut({}, sizes_of(50, 500)).empty());
}

TEST_CASE("a single worker has the same pieces, as they lie in memory") {
  support::random_source random(91);
  for (int i = 0; i < 50; ++i) {
    std::vector<chunk_work> work(random.size(1, 20));
    for (chunk_work& c : work)
      for (divisible_work& w : c)
        w = {random.size(0, 3) == 0 ? 0 : random.size(1, 300),
             static_cast<double>(random.size(1, random.size(1, 5000)))};
    const work_sizes sizes = sizes_of(random.size(1, 70), random.size(1, 10'000));
    const auto place = [](const work_piece& p) { return std::tuple(p.chunk, p.kind, p.first, p.count); };
    const auto by_place = [&](const work_piece& a, const work_piece& b) { return place(a) < place(b); };
    const auto alone = cut(work, sizes, 1);
    auto shared = cut(work, sizes);
    CHECK(std::is_sorted(alone.begin(), alone.end(), by_place));
    std::sort(shared.begin(), shared.end(), by_place);
    CHECK(
        std::equal(alone.begin(), alone.end(), shared.begin(), shared.end(),
                   [&](const work_piece& a, const work_piece& b) { return place(a) == place(b) && a.cost == b.cost; }));
  }
}

TEST_CASE(
    "for one worker, or where there is little to do, work of a kind on a chunk is a piece, and all are one task") {
  const std::vector<chunk_work> work{{{{3, 1.0}, {0, 1.0}}}, {{{1, 5.0}, {1000, 7.0}}}};
  constexpr std::size_t total = 3 + 5 + 7000;
  const context ctx{backends::reference{}, for_one_task{}};
  const auto run = [&](const work_sizes& sizes, workers who) {
    std::vector<std::array<std::size_t, 4>> done;
    run_phase(
        ctx, vector_view<const chunk_work>(work), sizes, [](const chunk_work& c) { return c; },
        [&](const chunk_work&, const work_piece& w, std::size_t worker) {
          CHECK(worker == 2);
          done.push_back({w.chunk, w.kind, w.first, w.count});
        },
        pieces_tell{}, who);
    return done;
  };
  const std::vector<std::array<std::size_t, 4>> expected{{0, 0, 0, 3}, {1, 0, 0, 1}, {1, 1, 0, 1000}};
  CHECK(run(sizes_of(10, 1), workers::one) == expected);
  CHECK(run(sizes_of(10, total), workers::all) == expected);
}

TEST_CASE("the rows of a piece: as many as its units have, the last of all perhaps fewer") {
  CHECK(work_piece{0, 0, 2, 3, 0}.of(32, 1000).first == 64);
  CHECK(work_piece{0, 0, 2, 3, 0}.of(32, 1000).count == 96);
  CHECK(work_piece{0, 0, 2, 3, 0}.of(32, 145).count == 81);
}
