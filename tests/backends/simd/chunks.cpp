// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/backends/simd/chunks.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/execution/context.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

using namespace hmoe;
using namespace hmoe::backends::simd_detail;

namespace {

/// The rows of five experts, one of them without any.
struct some_rows {
  std::vector<matrix<float>> x;
  std::vector<expert_rows<float>> all;

  some_rows() {
    for (const auto& [expert, count] : {std::pair{0U, 100U}, {1U, 3000U}, {2U, 0U}, {3U, 5000U}, {4U, 1U}}) {
      x.emplace_back(count, 64);
      all.push_back({.expert = expert, .count = count, .x = x.back().view(), .y = x.back().view()});
    }
  }
};
constexpr std::size_t lengths[] = {30, 12000, 30, 300, 60};
chunk_values values_of(const expert_rows<float>& r) { return {lengths[r.expert], 8 * lengths[r.expert], 6}; }

} // namespace

TEST_CASE("batches have all rows of a bank's experts once and in order, and fit the budget") {
  const some_rows rows;
  const context ctx{backends::reference{}};
  for (const work_sizes& sizes : {plain_work_sizes, packed_work_sizes})
    for (const same_expert several : {same_expert::in_turn, same_expert::together}) {
      std::vector<std::size_t> done(rows.all.size(), 0);
      std::size_t last_expert = 0, batches = 0, twice = 0;
      for_each_batch<float>(ctx, vector_view<const expert_rows<float>>(rows.all), values_of, several, sizes,
                            [&](vector_view<const chunk<float>> chunks, float* memory) {
                              ++batches;
                              std::size_t used = 0, before = no_index;
                              for (const chunk<float>& c : chunks) {
                                const std::size_t e = c.rows.expert, count = c.rows.count;
                                CHECK(e >= last_expert);
                                twice += e == before ? 1 : 0;
                                CHECK(c.rows.x.data() == rows.all[e].x.row(done[e]).data());
                                CHECK(c.rows.x.rows() == count);
                                CHECK(count >= 1);
                                CHECK(count <= sizes.most_rows);
                                CHECK(c.memory == used);
                                last_expert = before = e;
                                done[e] += count;
                                used += values_of(c.rows).of(count);
                              }
                              CHECK((chunks.size() == 1 || used * sizeof(float) <= sizes.batch_bytes));
                              std::fill_n(memory, used, 1.0F); // the sanitizer looks whether there is so much
                            });
      CHECK(done == std::vector<std::size_t>{100, 3000, 0, 5000, 1});
      CHECK(batches > 5);
      CHECK(batches < 60);
      CHECK((twice != 0) == (several == same_expert::together));
    }
}

TEST_CASE("a chunk has whole blocks that fit the budget, within the limits, and none where there is nothing to do") {
  constexpr work_sizes sizes{1000 * sizeof(float), 10, 100, 1, 1};
  CHECK(most_chunk_rows<float>({20, 0, 1}, sizes) == 50);
  CHECK(most_chunk_rows<float>({20, 100, 6}, sizes) == 24); // 4 · (6 · 20 + 100) = 880
  CHECK(most_chunk_rows<float>({1, 0, 1}, sizes) == 100);
  CHECK(most_chunk_rows<float>({500, 0, 1}, sizes) == 10);
  CHECK(chunk_values{20, 100, 6}.of(0) == 0);
  CHECK(chunk_values{20, 100, 6}.of(6) == 220);
  CHECK(chunk_values{20, 100, 6}.of(7) == 340);

  const some_rows rows;
  std::size_t computed = 0;
  for_each_batch<float>(
      context{backends::reference{}}, vector_view<const expert_rows<float>>(rows.all),
      [](const expert_rows<float>& r) { return r.expert == 3 ? chunk_values{} : values_of(r); }, same_expert::together,
      packed_work_sizes,
      [&](vector_view<const chunk<float>> chunks, float*) {
        for (const chunk<float>& c : chunks)
          computed += c.rows.count;
      });
  CHECK(computed == 3101);
}
