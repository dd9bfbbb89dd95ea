// SPDX-License-Identifier: MIT
#include <hmoe/core/buffer.hpp>
#include <hmoe/routing/batch_selections/random_hash.hpp>
#include <hmoe/routing/preference.hpp>
#include <hmoe/testing/batch_selection_laws.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <memory_resource>
#include <string>

using hmoe::index_t;

namespace {
enum class fault {
  none,
  past_the_end,
  too_many,
  unknown,
  twice,
  nobody,
  takes_scratch,
  past_its_scratch,
  drifts,
  favours_an_expert,
  favours_a_token
};

/// Each token gets its best expert, with one thing wrong.
struct best_of_token {
  fault has = fault::none;
  static inline std::atomic<unsigned> calls = 0;
  [[nodiscard]] std::size_t max_selected(std::size_t) const { return 1 + (has == fault::twice ? 1 : 0); }

  template <class T>
  void operator()(const hmoe::router_trace<T>& trace, hmoe::matrix_view<index_t> chosen,
                  hmoe::vector_view<index_t> counts, std::pmr::memory_resource* memory) const {
    const std::size_t tokens = trace.tokens(), experts = trace.expert_count();
    hmoe::buffer<index_t> scratch(has == fault::takes_scratch || has == fault::past_its_scratch ? 16 : 0, memory);
    if (has == fault::past_its_scratch)
      scratch.data()[16] = 0;
    for (std::size_t t = 0; t < tokens; ++t) {
      index_t best = hmoe::routing::next_preferred(trace.logits().row(t), hmoe::no_index);
      if (has == fault::drifts)
        best = (best + ++calls) % static_cast<index_t>(experts);
      if (has == fault::favours_an_expert && t % 2 == 0 && trace.logits()(t, 0) > 0)
        best = 0;
      if (has == fault::favours_a_token && t == 0)
        best = hmoe::routing::next_preferred(trace.logits().row(t), best);
      chosen(t, 0) = has == fault::unknown ? static_cast<index_t>(experts) : best;
      counts[t] = has == fault::nobody ? 0 : 1;
      if (has == fault::twice)
        chosen(t, counts[t]++) = best;
      if (has == fault::too_many)
        counts[t] = 2;
    }
    if (has == fault::past_the_end)
      counts.data()[tokens] = 1;
  }
};

/// Announces how much scratch it takes, which is optional; 64 bytes are right.
struct announcing : best_of_token {
  std::size_t bytes;
  explicit announcing(std::size_t announced) : best_of_token{fault::takes_scratch}, bytes(announced) {}
  void lay_out(std::pmr::memory_resource* memory, std::size_t, std::size_t) const {
    if (bytes != 0)
      static_cast<void>(memory->allocate(bytes, 1));
  }
};
std::string laws(fault has, const hmoe::testing::batch_selection_options& options = {}) {
  return hmoe::testing::check_batch_selection<double>(best_of_token{has}, 4, options).text();
}
bool names(const std::string& text, const char* law) { return text.find(law) != std::string::npos; }
} // namespace

TEST_CASE("a sound selection over the batch keeps the laws") { CHECK(laws(fault::none) == ""); }

TEST_CASE("each fault of a selection over the batch is named") {
  CHECK(names(laws(fault::past_the_end), "writes only into the slots it was given"));
  CHECK(names(laws(fault::too_many), "chooses at most max_selected experts: it chose 2 for token 0"));
  CHECK(names(laws(fault::unknown), "chooses experts that exist: it chose expert 4 of 4"));
  CHECK(names(laws(fault::twice), "chooses no expert twice"));
  CHECK(laws(fault::nobody) == "");
  CHECK(names(laws(fault::nobody, {.may_choose_none = false}), "chooses an expert for each token: none for token 0"));
  CHECK(laws(fault::takes_scratch) == "");
  CHECK(hmoe::testing::check_batch_selection<double>(announcing(64), 4).text() == "");
  CHECK(names(hmoe::testing::check_batch_selection<double>(announcing(0), 4).text(),
              "lay_out announces enough: for 0 tokens it took 64 bytes, announced are 0"));
  CHECK(names(laws(fault::past_its_scratch), "writes only into the memory it took"));
  CHECK(names(laws(fault::drifts), "chooses the same every time"));
  CHECK(names(laws(fault::favours_an_expert), "treats experts alike"));
  CHECK(laws(fault::favours_an_expert, {.treats_experts_alike = false, .treats_tokens_alike = false}) == "");
  CHECK(names(laws(fault::favours_a_token), "treats tokens alike"));
  CHECK(names(laws(fault::none, {.load_difference = 0}), "balances the loads"));
  CHECK(names(hmoe::testing::check_batch_selection<double>(hmoe::routing::random_hash{}, 4).text(),
              "works without an exception: an exception was thrown: hmoe: hash selection needs the id"));
}
