// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/build_plan.hpp>
#include <hmoe/parallel/row_exchange.hpp>
#include <hmoe/parallel/threads.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <memory_resource>
#include <vector>

namespace {
using ids = std::vector<hmoe::index_t>;
using counts = std::vector<std::size_t>;

/// The exchanges of ranks whose tokens go to these experts.
std::vector<hmoe::dispatch::row_exchange> exchanges_of(const std::vector<std::vector<ids>>& experts_of_tokens,
                                                       const hmoe::expert_placement& placed) {
  std::vector<hmoe::dispatch::row_exchange> result(experts_of_tokens.size());
  hmoe::communicators::threads(experts_of_tokens.size()).run([&](const auto& self) {
    const auto& tokens = experts_of_tokens[self.rank()];
    hmoe::assignment<float> assigned;
    assigned.resize_tokens(tokens.size());
    for (std::size_t t = 0; t < tokens.size(); ++t)
      assigned.offsets()[t + 1] = static_cast<hmoe::index_t>(assigned.offsets()[t] + tokens[t].size());
    assigned.resize_entries();
    for (std::size_t t = 0; t < tokens.size(); ++t)
      std::ranges::copy(tokens[t], assigned.experts().begin() + assigned.offsets()[t]);
    hmoe::plan by_expert;
    hmoe::dispatch::build_plan(assigned, placed.experts(), by_expert);
    result[self.rank()].build(self, placed, assigned, by_expert, {0, tokens.size()}, 4,
                              std::pmr::get_default_resource());
  });
  return result;
}
template <class View> auto list(const View& view) {
  return std::vector<std::remove_cvref_t<decltype(view[0])>>(view.begin(), view.end());
}
} // namespace

TEST_CASE("a row goes once to each rank that needs it, a result comes back for each entry") {
  // Tokens a, b on rank 0 and c on rank 1; experts 0, 1 on rank 0 and 2, 3 on rank 1.
  const auto ranks = exchanges_of({{{0, 2}, {2, 3}}, {{1, 3}}}, hmoe::placement::contiguous(4, 2));
  CHECK(list(ranks[0].rows_out()) == counts{1, 2});
  CHECK(list(ranks[0].entries_out()) == counts{1, 3});
  CHECK(list(ranks[0].tokens_out()) == ids{0, 0, 1}); // a to rank 0, a and b to rank 1
  CHECK(list(ranks[0].results()) == ids{0, 1, 2, 3}); // a:0 from rank 0, then a:2 b:2 b:3
  CHECK(list(ranks[0].result_of()) == ids{0, 1, 2, 3});
  CHECK(list(ranks[0].rows_in()) == counts{1, 1}); // a and c
  CHECK(list(ranks[0].experts_in()) == ids{0, 1});
  CHECK(list(ranks[0].rows_of_results_in()) == ids{0, 1});
  CHECK(list(ranks[1].rows_in()) == counts{2, 1}); // a, b, c
  CHECK(list(ranks[1].entries_in()) == counts{3, 1});
  CHECK(list(ranks[1].experts_in()) == ids{2, 2, 3, 3});
  CHECK(list(ranks[1].rows_of_results_in()) == ids{0, 1, 1, 2});
  CHECK(list(ranks[1].first_entries_in()) == ids{0, 1, 3, 4});
  CHECK(ranks[1].rows_in_total() == 3);
}

TEST_CASE("entries in the order of the assignment find their results in the order of ranks") {
  auto ranks = exchanges_of({{{0, 1, 2}, {}, {1, 2}}, {}}, hmoe::placement::round_robin(3, 2));
  CHECK(list(ranks[0].tokens_out()) == ids{0, 2, 0, 2});
  CHECK(list(ranks[0].results()) == ids{0, 2, 4, 1, 3}); // experts 0, 2, 2 of rank 0, then 1, 1 of rank 1
  CHECK(list(ranks[0].result_of()) == ids{0, 3, 1, 4, 2});
  CHECK(list(ranks[0].rows_in()) == counts{2, 0});
  CHECK(list(ranks[0].rows_of_results_in()) == ids{0, 0, 1});
  CHECK(list(ranks[1].rows_in()) == counts{2, 0});
  CHECK(ranks[1].tokens_out().empty());
  ranks[0].index_rows_of_tokens({0, 3});
  CHECK(list(ranks[0].rows_of_token(0)) == ids{0, 2});
  CHECK(ranks[0].rows_of_token(1).empty());
  CHECK(list(ranks[0].rows_of_token(2)) == ids{1, 3});
}
