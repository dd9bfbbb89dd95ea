// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/backends/simd/row_waves.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/glu.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <utility>
#include <vector>

using namespace hmoe;
using namespace hmoe::backends::simd_detail;

TEST_CASE("waves have all rows of a bank's experts once and in order, one chunk of an expert, and fit the budget") {
  using batch = dispatch::forward_batch<float>;
  using limits = dispatch::bank_memory;
  const experts::glu_bank<float, experts::silu> bank(64, {10, 4000, 10, 500, 20});
  const std::size_t first_expert = 3;
  std::vector<matrix<float>> rows;
  std::vector<batch> batches;
  for (const auto& [expert, count] :
       {std::pair{0U, 10U}, {3U, 100U}, {4U, 3000U}, {5U, 0U}, {6U, 5000U}, {7U, 1U}, {8U, 50U}}) { // 0 and 8 belong to
                                                                                                    // other banks
    rows.emplace_back(count, 64);
    batches.push_back({expert, rows.back().view(), rows.back().view(), {}});
  }
  const context ctx{backends::reference{}};
  const auto values = [&](std::size_t b, std::size_t count) {
    return count * bank.saved_per_row(batches[b].expert - first_expert);
  };
  std::vector<std::size_t> done(batches.size(), 0);
  std::size_t last_batch = 0, waves = 0;
  for_each_wave<float>(ctx, bank, first_expert, vector_view<const batch>(batches), values,
                       [&](vector_view<const row_chunk> wave, float* memory) {
                         ++waves;
                         std::size_t used = 0, before = no_index;
                         for (const row_chunk& c : wave) {
                           CHECK(c.batch >= last_batch);
                           CHECK(c.batch != before);
                           CHECK(c.first == done[c.batch]);
                           CHECK(c.rows >= 1);
                           CHECK(c.rows <= most_chunk_rows);
                           CHECK(c.memory == used);
                           last_batch = before = c.batch;
                           done[c.batch] += c.rows;
                           used += values(c.batch, c.rows);
                         }
                         CHECK((wave.size() == 1 || used * sizeof(float) <= limits::budget));
                         std::fill_n(memory, used, 1.0F); // the sanitizer looks whether there is so much
                       });
  CHECK(done == std::vector<std::size_t>{0, 100, 3000, 0, 5000, 1, 0});
  CHECK(waves > 5);
  CHECK(waves < 30);
}
