// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/permuted.hpp>
#include <hmoe/execution/context.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

TEST_CASE("a token's rows are added up by entry, dropped entries left out, tokens without an expert become 0") {
  // Token 0 has entries 0 and 1, token 1 none, token 2 entries 2 and 3, the last of which is dropped.
  hmoe::tape<double> tape;
  const auto copy = [](std::vector<hmoe::index_t> from, auto to) { std::ranges::copy(from, to.begin()); };
  tape.assignment().resize_tokens(3);
  copy({0, 2, 2, 4}, tape.assignment().offsets());
  tape.assignment().resize_entries();
  copy({0, 1, 0, 1}, tape.assignment().experts());
  tape.plan().resize(2, 3, 4);
  copy({0, 2, 3}, tape.plan().offsets());
  copy({0, 2, 1, hmoe::no_index}, tape.plan().slots());
  hmoe::matrix<double> by_expert(3, 1), y(3, 1);
  std::ranges::copy(std::vector<double>{1, 10, 100}, by_expert.data());
  std::fill_n(y.data(), 3, 77.0);
  hmoe::dispatch::permuted::combine(hmoe::context{hmoe::backends::reference{}}, std::as_const(tape),
                                    std::as_const(by_expert).view(), y.view(),
                                    [](std::size_t entry) { return static_cast<double>(entry + 2); });
  CHECK(std::vector<double>(y.data(), y.data() + 3) == std::vector<double>{2 * 1 + 3 * 100, 0, 4 * 10});
}
