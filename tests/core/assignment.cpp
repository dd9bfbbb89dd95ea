// SPDX-License-Identifier: MIT
#include <hmoe/core/assignment.hpp>
#include <hmoe/execution/workspace.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <utility>
#include <vector>

using hmoe::index_t;

namespace {

using lists = std::vector<std::vector<std::pair<index_t, double>>>;

hmoe::assignment<double> assign(const lists& tokens) {
  hmoe::assignment<double> result;
  result.resize_tokens(tokens.size());
  for (std::size_t t = 0; t < tokens.size(); ++t)
    result.offsets()[t + 1] = result.offsets()[t] + static_cast<index_t>(tokens[t].size());
  result.resize_entries();
  std::size_t a = 0;
  for (const auto& token : tokens)
    for (const auto& [expert, weight] : token) {
      result.experts()[a] = expert;
      result.weights()[a++] = weight;
    }
  return result;
}

} // namespace

TEST_CASE("tokens see their own experts and weights") {
  const auto assigned = assign({{{0, 0.25}, {3, 0.75}}, {}, {{2, 1.0}}});
  CHECK(assigned.tokens() == 3);
  CHECK(assigned.size() == 3);
  CHECK(std::ranges::equal(assigned.experts_of(0), std::vector<index_t>{0, 3}));
  CHECK(std::ranges::equal(assigned.weights_of(0), std::vector{0.25, 0.75}));
  CHECK(assigned.experts_of(1).empty());
  CHECK(assigned.weights_of(1).empty());
  CHECK(assigned.experts_of(2)[0] == 2);
  CHECK_NOTHROW(assigned.validate(4));
}

TEST_CASE("an assignment without tokens is valid") {
  const hmoe::assignment<float> none;
  CHECK(none.tokens() == 0);
  CHECK(none.size() == 0);
  CHECK_NOTHROW(none.validate(0));
}

TEST_CASE("validate names the token, the ids and the offsets that are wrong") {
  CHECK_THROWS_WITH_AS(assign({{}, {{1, 1.0}, {4, 1.0}}}).validate(4), "hmoe: token 1 is assigned to expert 4 of 4",
                       hmoe::error);
  CHECK_THROWS_WITH_AS(assign({{{2, 1.0}, {1, 1.0}}}).validate(4),
                       "hmoe: the experts of token 0 are not in ascending order: 2 before 1", hmoe::error);
  CHECK_THROWS_WITH_AS(assign({{{2, 1.0}}, {{3, 1.0}, {3, 1.0}}}).validate(4), // the same expert twice
                       "hmoe: the experts of token 1 are not in ascending order: 3 before 3", hmoe::error);

  auto late = assign({{{0, 1.0}}});
  late.offsets()[0] = 1;
  CHECK_THROWS_WITH_AS(late.validate(4), "hmoe: assignment offsets start at 1 instead of 0", hmoe::error);
}

TEST_CASE("offsets that point past the ids are reported before anything is read there") {
  auto descending = assign({{{0, 1.0}, {1, 1.0}}, {{0, 1.0}}});
  descending.offsets()[1] = index_t{1} << 30U;
  CHECK_THROWS_WITH_AS(descending.validate(4), "hmoe: assignment offsets of token 1 descend: 1073741824 to 3",
                       hmoe::error);
  auto unfilled = assign({{{0, 1.0}}, {{0, 1.0}}});
  unfilled.offsets()[2] = index_t{1} << 30U;
  CHECK_THROWS_WITH_AS(unfilled.validate(4),
                       "hmoe: the assignment has 1073741824 entries by its offsets, but 2 ids and 2 weights",
                       hmoe::error);
}

TEST_CASE("resizing to fewer or more tokens starts from zero entries") {
  auto assigned = assign({{{0, 1.0}}, {{1, 1.0}}});
  assigned.resize_tokens(5);
  CHECK(assigned.tokens() == 5);
  CHECK(assigned.size() == 0);
  CHECK_NOTHROW(assigned.validate(1));
}

TEST_CASE("after reserve, filling takes no more memory") {
  support::random_source random(4);
  for (int round = 0; round < 20; ++round) {
    const std::size_t tokens = random.size(0, 70), entries = random.size(0, 200);
    hmoe::workspace memory;
    const hmoe::workspace::scope scope(memory);
    hmoe::assignment<float> assigned(&memory);
    assigned.reserve(tokens, entries);
    CHECK(assigned.tokens() == 0);
    CHECK(assigned.size() == 0);
    const std::size_t reserved = memory.peak();
    assigned.resize_tokens(tokens);
    if (tokens > 0) {
      assigned.offsets()[tokens] = static_cast<index_t>(entries);
      assigned.resize_entries();
    }
    CHECK(memory.peak() == reserved);
  }
}

TEST_CASE("counts become offsets, or are refused with the numbers where their sum does not fit") {
  hmoe::assignment<float> assigned;
  assigned.resize_tokens(3);
  const std::vector<index_t> counts{2, 0, 5};
  std::copy(counts.begin(), counts.end(), assigned.offsets().data() + 1);
  assigned.sum_counts();
  CHECK(std::vector<index_t>(assigned.offsets().begin(), assigned.offsets().end()) == std::vector<index_t>{0, 2, 2, 7});

  assigned.resize_tokens(3);
  const std::vector<index_t> many{3'000'000'000, 1, 1'294'967'295}; // one more than no_index
  std::copy(many.begin(), many.end(), assigned.offsets().data() + 1);
  CHECK(support::error_of([&] { assigned.sum_counts(); }) ==
        "hmoe: 3 tokens with 4294967296 entries in all are too many for 32-bit offsets, which count to 4294967294: "
        "route them in smaller batches");
  CHECK(std::vector<index_t>(assigned.offsets().begin() + 1, assigned.offsets().end()) == many);
  assigned.offsets()[3] = 1'294'967'293;
  assigned.sum_counts(); // the most there can be
  CHECK(assigned.size() == 4'294'967'294);
}

TEST_CASE("sums that were wrapped to 32 bits are refused before anything is written by them") {
  // 2^24 tokens with 256 experts each, counted in 32 bits: the last offset is 2^32, which is 0.
  hmoe::assignment<float> assigned;
  const std::size_t tokens = std::size_t{1} << 24;
  assigned.resize_tokens(tokens);
  for (std::size_t t = 0; t < tokens; ++t)
    assigned.offsets()[t + 1] = static_cast<index_t>(256 * (t + 1));
  CHECK(support::error_of([&] { assigned.resize_entries(); }) ==
        "hmoe: assignment offsets of token 16777215 descend: 4294967040 to 0");
}
