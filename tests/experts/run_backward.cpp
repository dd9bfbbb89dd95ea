// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/core/expert_rows.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/experts/run_backward.hpp>

#include "support/random_matrix.hpp"
#include "support/same_bits.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

TEST_CASE("the rows of an expert may come in blocks, forward in any order, backward as they lie: the same bits") {
  support::random_source random(8);
  const std::vector<std::size_t> counts{9, 1, 4, 7, 2, 30};
  constexpr std::size_t total = 53;
  const auto x = support::random_matrix<float>(random, total, 4), dy = support::random_matrix<float>(random, total, 4);
  using set_type = hmoe::expert_set<hmoe::experts::glu_bank<float, hmoe::experts::silu>,
                                    hmoe::experts::mlp_bank<float, hmoe::experts::gelu>>;
  set_type set{hmoe::experts::glu_bank<float, hmoe::experts::silu>(4, {2, 7, 5}, hmoe::experts::biases::all),
               hmoe::experts::mlp_bank<float, hmoe::experts::gelu>(4, {3, 1, 6}, hmoe::experts::biases::none)};
  set.visit_parameters([&](const hmoe::parameter_info&, auto view) { support::fill(random, view); });
  const auto run = [&](std::size_t threads, std::size_t block) {
    const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::openmp{threads}};
    hmoe::matrix<float> y(total, 4), dx(total, 4);
    std::vector<hmoe::matrix<float>> saved;
    std::vector<hmoe::expert_rows<float>> work;
    for (std::size_t e = 0; e < counts.size(); ++e)
      saved.emplace_back(counts[e], set.saved_per_row(e));
    for (std::size_t e = 0, first = 0; e < counts.size(); first += counts[e++]) {
      const auto part = [&](auto& all) { return all.view().row_block(first, counts[e]); };
      hmoe::expert_rows<float> rows{.expert = e,
                                    .count = counts[e],
                                    .x = part(x),
                                    .y = part(y),
                                    .saved = saved[e].view(),
                                    .dy = part(dy),
                                    .dx = part(dx)};
      for (std::size_t done = 0; done < counts[e]; done += block)
        work.push_back(rows.part(done, std::min(block, counts[e] - done)));
    }
    std::vector<hmoe::expert_rows<float>> any_order(work.rbegin(), work.rend());
    auto gradients = set;
    hmoe::set_zero(gradients);
    set.forward_rows(ctx, hmoe::vector_view<const hmoe::expert_rows<float>>(any_order));
    set.backward_rows(ctx, hmoe::vector_view<const hmoe::expert_rows<float>>(work), gradients);
    std::vector<float> all(y.data(), y.data() + y.size());
    all.insert(all.end(), dx.data(), dx.data() + dx.size());
    gradients.visit_parameters([&](const hmoe::parameter_info&, hmoe::matrix_view<float> view) {
      all.insert(all.end(), view.data(), view.data() + view.size());
    });
    return all;
  };
  const std::vector<float> expected = run(1, 100);
  for (const std::size_t block : {1U, 3U, 8U})
    for (const std::size_t threads : {1U, 3U}) {
      CAPTURE(block);
      CAPTURE(threads);
      const std::vector<float> got = run(threads, block);
      CHECK(support::same_bits(got, expected));
    }
}

TEST_CASE("rows that scatter are refused backward where a bank cannot compute them, before anything is written") {
  using set_type = hmoe::expert_set<hmoe::experts::mlp_bank<float, hmoe::experts::gelu>>;
  const set_type set{hmoe::experts::mlp_bank<float, hmoe::experts::gelu>(4, {3})};
  const hmoe::context ctx{hmoe::backends::reference{}};
  hmoe::matrix<float> x(2, 4), dx(2, 4);
  const hmoe::index_t token = 1, entry = 0;
  const float weight = 1;
  hmoe::expert_rows<float> rows{.expert = 0, .count = 1, .x = x.view(), .dy = x.view(), .dx = dx.view()};
  rows.tokens = hmoe::vector_view<const hmoe::index_t>(&token, 1);
  rows.entries = hmoe::vector_view<const hmoe::index_t>(&entry, 1);
  rows.weights = hmoe::vector_view<const float>(&weight, 1);
  std::fill_n(dx.data(), dx.size(), 7.0F);
  set_type gradients = set;
  CHECK_THROWS_WITH_AS(
      set.backward_rows(ctx, hmoe::vector_view<const hmoe::expert_rows<float>>(&rows, 1), gradients),
      "hmoe: backward_rows: rows scatter, and not all banks of the set can do that in this context: ask "
      "gathers_rows(ctx)",
      hmoe::error);
  CHECK(std::all_of(dx.data(), dx.data() + dx.size(), [](float value) { return value == 7.0F; }));
}
