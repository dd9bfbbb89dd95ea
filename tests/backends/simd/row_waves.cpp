// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/backends/simd/row_waves.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/glu.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <utility>
#include <vector>

using namespace hmoe;
using namespace hmoe::backends::simd_detail;

TEST_CASE("waves have all rows of a bank's experts once and in order, one chunk of an expert, and fit the budget") {
  using limits = experts::bank_memory;
  const experts::glu_bank<float, experts::silu> bank(64, {10, 4000, 10, 500, 20});
  std::vector<matrix<float>> rows;
  std::vector<expert_rows<float>> work;
  for (const auto& [expert, count] : {std::pair{0U, 100U}, {1U, 3000U}, {2U, 0U}, {3U, 5000U}, {4U, 1U}}) {
    rows.emplace_back(count, 64);
    work.push_back({.expert = expert, .count = count, .x = rows.back().view(), .y = rows.back().view()});
  }
  const context ctx{backends::reference{}};
  const auto values = [&](std::size_t i, std::size_t count) { return count * bank.saved_per_row(work[i].expert); };
  std::vector<std::size_t> done(work.size(), 0);
  std::size_t last_entry = 0, waves = 0;
  for_each_wave<float>(ctx, bank, vector_view<const expert_rows<float>>(work), values,
                       [&](vector_view<const row_chunk> wave, float* memory) {
                         ++waves;
                         std::size_t used = 0, before = no_index;
                         for (const row_chunk& c : wave) {
                           CHECK(c.work >= last_entry);
                           CHECK(c.work != before);
                           CHECK(c.first == done[c.work]);
                           CHECK(c.rows >= 1);
                           CHECK(c.rows <= most_chunk_rows);
                           CHECK(c.memory == used);
                           last_entry = before = c.work;
                           done[c.work] += c.rows;
                           used += values(c.work, c.rows);
                         }
                         CHECK((wave.size() == 1 || used * sizeof(float) <= limits::budget));
                         std::fill_n(memory, used, 1.0F); // the sanitizer looks whether there is so much
                       });
  CHECK(done == std::vector<std::size_t>{100, 3000, 0, 5000, 1});
  CHECK(waves > 5);
  CHECK(waves < 30);
}
