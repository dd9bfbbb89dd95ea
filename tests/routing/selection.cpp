// SPDX-License-Identifier: MIT
#include <hmoe/routing/router.hpp>
#include <hmoe/testing/selection_laws.hpp>

#include <doctest/doctest.h>

#include <cstddef>

namespace {
struct best_and_close_ones { // the example of docs/routing.md
  template <class T>
  std::size_t operator()(hmoe::vector_view<const T> p, hmoe::vector_view<hmoe::index_t> chosen) const {
    const T best = p[hmoe::routing::next_preferred(p, hmoe::no_index)];
    std::size_t count = 0;
    for (hmoe::index_t i = 0; i < p.size(); ++i)
      if (p[i] >= best / 2)
        chosen[count++] = i;
    return count;
  }
};
} // namespace

TEST_CASE("the selection that the documentation writes keeps the laws") {
  CHECK(hmoe::testing::check_selection<double>(best_and_close_ones{}, 6, {.may_choose_none = false}).text() == "");
  const hmoe::routing::router<hmoe::routing::linear<float>, best_and_close_ones> router{768, 8};
  CHECK(router.max_selected() == 8);
}
