// SPDX-License-Identifier: MIT
#include <hmoe/routing/selections/threshold.hpp>
#include <hmoe/routing/selections/top_k.hpp>
#include <hmoe/routing/selections/top_p.hpp>
#include <hmoe/testing/selection_laws.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <string>

using hmoe::index_t;
using hmoe::vector_view;
using probabilities = vector_view<const float>;
using slots = vector_view<index_t>;

namespace {
std::string laws(const auto& select, const hmoe::testing::selection_options& options = {}) {
  return hmoe::testing::check_selection<float>(select, 6, options).text();
}
bool names(const std::string& text, const char* law) { return text.find(law) != std::string::npos; }
/// The most probable expert, found with scratch, of which it may ask for too little.
struct copies_first {
  std::size_t asked;
  [[nodiscard]] std::size_t scratch_size(std::size_t) const { return asked; }
  std::size_t operator()(probabilities p, slots chosen, vector_view<float> scratch) const {
    for (std::size_t e = 0; e < p.size(); ++e)
      scratch.data()[e] = p[e];
    chosen[0] = static_cast<index_t>(std::max_element(scratch.data(), scratch.data() + p.size()) - scratch.data());
    return 1;
  }
};
} // namespace

TEST_CASE("shipped selections keep the laws, and so does a lambda") {
  CHECK(laws(hmoe::routing::top_k<2>{}) == "");
  CHECK(laws(hmoe::routing::top_p{0.6}) == "");
  CHECK(laws(hmoe::routing::threshold{0.2}) == "");
  CHECK(laws([](probabilities p, slots chosen) {
          chosen[0] = hmoe::routing::next_preferred(p, hmoe::no_index);
          return 1U;
        }) == "");
}

TEST_CASE("each fault of a selection is named") {
  CHECK(names(laws([](probabilities, slots chosen) { return chosen[0] = 1, chosen[1] = 1, 2U; }),
              "chooses no expert twice"));
  CHECK(names(laws([](probabilities, slots chosen) { return chosen[0] = 6, 1U; }),
              "chooses experts that exist: it chose expert 6 of 6"));
  CHECK(names(laws([](probabilities, slots) { return 7U; }), "chooses at most max_selected experts: it chose 7 of 6"));
  CHECK(
      names(laws([](probabilities, slots chosen) { return chosen.data()[6] = 0, 0U; }), "writes only into the slots"));
  CHECK(laws(copies_first{6}) == "");
  CHECK(names(laws(copies_first{5}), "uses only the scratch it asked for: memory beside the 5 values"));
  CHECK(names(laws([](probabilities, slots) { return 0U; }, {.may_choose_none = false}),
              "chooses an expert for each token"));
  CHECK(names(laws([](probabilities p, slots chosen) { // the least probable
                chosen[0] = static_cast<index_t>(std::min_element(p.begin(), p.end()) - p.begin());
                return 1U;
              }),
              "prefers more probable experts"));
  CHECK(names(laws([](probabilities p, slots chosen) { // the last of the most probable
                chosen[0] = 0;
                for (index_t e = 1; e < p.size(); ++e)
                  if (p[e] >= p[chosen[0]])
                    chosen[0] = e;
                return 1U;
              }),
              "gives ties to the lower id"));
  const auto favours_zero = [](probabilities p, slots chosen) {
    chosen[0] = 0;
    chosen[1] = hmoe::routing::next_preferred(p, hmoe::no_index);
    return chosen[1] == 0 ? 1U : 2U;
  };
  CHECK(names(laws(favours_zero), "treats experts alike"));
  CHECK(laws(favours_zero, {.prefers_probable = false, .ties_to_lower_id = false, .treats_experts_alike = false}) ==
        "");
  std::atomic<unsigned> calls = 0;
  CHECK(names(laws([&](probabilities, slots chosen) { return chosen[0] = ++calls % 6, 1U; }),
              "chooses the same every time"));
  CHECK(names(laws(hmoe::routing::top_k<>{9}), "an exception was thrown: hmoe: top_k with k = 9 for 6 experts"));
}
