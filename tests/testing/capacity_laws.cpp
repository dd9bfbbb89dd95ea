// SPDX-License-Identifier: MIT
#include <hmoe/core/error.hpp>
#include <hmoe/testing/capacity_laws.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <string>

namespace {
namespace capacity = hmoe::capacity;
enum class fault { none, past_the_end, forgets, shrinks, shrinks_when_asked, favours, drifts, invalid, no_tokens };

/// A quarter of the tokens for each expert, with one thing wrong.
struct quarter {
  fault has = fault::none;
  static inline std::atomic<std::size_t> calls = 0;
  void validate() const { hmoe::require(has != fault::invalid, "out of order"); }
  void limits(const capacity::demand& batch, hmoe::vector_view<std::size_t> limits) const {
    hmoe::require(has != fault::no_tokens || batch.tokens != 0, "nothing to divide");
    for (std::size_t e = 0; e < limits.size(); ++e)
      if (has != fault::forgets || e != 2)
        limits[e] =
            (batch.tokens + 3) / 4 + (has == fault::favours && e == 0 ? 1 : 0) + (has == fault::drifts ? ++calls : 0);
    if (has == fault::shrinks_when_asked && batch.entries == batch.tokens * limits.size())
      std::fill(limits.begin(), limits.end(), std::size_t{0});
    if (has == fault::past_the_end)
      limits.data()[limits.size()] = 0;
    if (has == fault::shrinks && batch.tokens > 100)
      std::fill(limits.begin(), limits.end(), std::size_t{1});
  }
};
std::string laws(fault has, const hmoe::testing::capacity_options& options = {}) {
  return hmoe::testing::check_capacity(quarter{has}, options).text();
}
bool names(const std::string& text, const char* law) { return text.find(law) != std::string::npos; }
} // namespace

TEST_CASE("a sound capacity keeps the laws") { CHECK(laws(fault::none) == ""); }

TEST_CASE("each fault of a capacity is named") {
  CHECK(names(laws(fault::past_the_end), "writes only one limit for each expert"));
  CHECK(names(laws(fault::forgets), "writes the limit of every expert: not that of expert 2 of 4"));
  CHECK(names(laws(fault::shrinks), "limits do not shrink when the batch grows: expert 0 of 1 may take 16 rows of 64 "
                                    "tokens and 1 of 2 times as many"));
  CHECK(names(laws(fault::shrinks_when_asked), "limits do not shrink when more tokens ask: expert 0 of 1 may take 1 "
                                               "rows of 3 tokens, and 0 when all ask for all experts"));
  CHECK(names(laws(fault::favours), "treats experts alike"));
  CHECK(laws(fault::favours, {.treats_experts_alike = false}) == "");
  CHECK(names(laws(fault::drifts), "gives the same limits every time"));
  CHECK(names(laws(fault::invalid), "works without an exception: an exception was thrown: hmoe: out of order"));
  CHECK(names(laws(fault::no_tokens), "works without an exception: an exception was thrown: hmoe: nothing to"));
}
