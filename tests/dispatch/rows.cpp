// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/rows.hpp>
#include <hmoe/execution/context.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <vector>

using hmoe::index_t, hmoe::matrix, hmoe::no_index;

namespace {

/// Two tokens; token 1 goes to experts 0 and 1 with weights 2 and 3, token 0 to expert 1 with weight 5. Slots: token 1
/// (entry 1) | token 0 (entry 0), token 1 (entry 2), padding.
hmoe::tape<double> three_entries(bool weights_on_input) {
  hmoe::tape<double> tape;
  tape.set_weights_on_input(weights_on_input);
  const auto copy = [](std::initializer_list<index_t> from, auto to) { std::ranges::copy(from, to.begin()); };
  auto& assigned = tape.assignment();
  assigned.resize_tokens(2);
  copy({0, 1, 3}, assigned.offsets());
  assigned.resize_entries();
  copy({1, 0, 1}, assigned.experts());
  std::ranges::copy(std::vector<double>{5, 2, 3}, assigned.weights().begin());
  auto& plan = tape.plan();
  plan.resize(2, 4, 3);
  copy({0, 1, 4}, plan.offsets());
  copy({1, 0, 1, no_index}, plan.tokens());
  copy({1, 0, 2, no_index}, plan.entries());
  copy({1, 0, 2}, plan.slots());
  return tape;
}
matrix<double> rows_of(std::initializer_list<std::initializer_list<double>> rows) {
  matrix<double> result(rows.size(), rows.begin()->size());
  for (std::size_t r = 0; r < rows.size(); ++r)
    std::ranges::copy(rows.begin()[r], result.row(r).begin());
  return result;
}
std::vector<double> values(const matrix<double>& m) { return {m.data(), m.data() + m.size()}; }

const hmoe::context ctx{hmoe::backends::reference{}};

} // namespace

TEST_CASE("experts read tokens, weighted where the weight is on the input, and zeros in padding slots") {
  const auto x = rows_of({{1, 10}, {2, 20}});
  matrix<double> rows(3, 2);
  for (const bool on_input : {false, true}) {
    const auto tape = three_entries(on_input);
    CHECK(hmoe::dispatch::slot_weight(tape, 0) == 2);
    CHECK(hmoe::dispatch::slot_weight(tape, 1) == 5);
    std::fill_n(rows.data(), rows.size(), 77.0);
    hmoe::dispatch::gather_input(ctx, tape, 1, x.view(), rows.view()); // slots 1 to 3
    CHECK(values(rows) ==
          (on_input ? std::vector<double>{5, 50, 6, 60, 0, 0} : std::vector<double>{1, 10, 2, 20, 0, 0}));
  }
}

TEST_CASE("weights on the output: their gradients are taken with what experts returned") {
  auto tape = three_entries(false);
  tape.expert_output() = rows_of({{1, 1}, {2, 0}, {0, 3}, {9, 9}});
  const auto dy = rows_of({{1, 10}, {2, 20}});
  matrix<double> d_out(4, 2), d_rows = rows_of({{1, 2}, {3, 4}, {5, 6}, {7, 8}});
  std::vector<double> d_weights{-1, -1, -1};
  hmoe::dispatch::gather_output_gradient(ctx, tape, 0, dy.view(), d_out.view(), hmoe::vector_view<double>(d_weights));
  CHECK(values(d_out) == std::vector<double>{4, 40, 5, 50, 6, 60, 0, 0});
  CHECK(d_weights == std::vector<double>{2, 22, 60}); // ⟨dy, output⟩ of entries 0, 1, 2
  hmoe::dispatch::scale_input_gradient(ctx, tape, 0, d_rows.view(), hmoe::vector_view<double>(d_weights));
  CHECK(values(d_rows) == std::vector<double>{1, 2, 3, 4, 5, 6, 7, 8}); // nothing is left to do
  CHECK(d_weights == std::vector<double>{2, 22, 60});
}

TEST_CASE("weights on the input: their gradients are taken with the tokens") {
  auto tape = three_entries(true);
  tape.input() = rows_of({{1, 10}, {2, 20}});
  const auto dy = rows_of({{1, 10}, {2, 20}});
  matrix<double> d_out(4, 2), d_rows = rows_of({{1, 2}, {3, 4}, {5, 6}, {7, 8}});
  std::vector<double> d_weights{-1, -1, -1};
  hmoe::dispatch::gather_output_gradient(ctx, tape, 0, dy.view(), d_out.view(), hmoe::vector_view<double>(d_weights));
  CHECK(values(d_out) == std::vector<double>{2, 20, 1, 10, 2, 20, 0, 0});
  CHECK(d_weights == std::vector<double>{-1, -1, -1});
  hmoe::dispatch::scale_input_gradient(ctx, tape, 0, d_rows.view(), hmoe::vector_view<double>(d_weights));
  CHECK(d_weights == std::vector<double>{43, 42, 130}); // ⟨d_row, x⟩ of entries 0, 1, 2
  CHECK(values(d_rows) == std::vector<double>{2, 4, 15, 20, 15, 18, 7, 8});
}
