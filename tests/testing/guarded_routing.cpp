// SPDX-License-Identifier: MIT
#include <hmoe/testing/guarded_routing.hpp>

#include <doctest/doctest.h>

#include <cmath>

using routing = hmoe::testing::guarded_routing<float>;

TEST_CASE("a guarded routing starts out as NaN with sinks of zero") {
  routing r(3, 4, 2, 2);
  CHECK(r.trace().tokens() == 3);
  CHECK(r.trace().expert_count() == 4);
  CHECK(std::isnan(r.trace().logits()(2, 3)));
  CHECK(std::isnan(r.trace().probabilities()(0, 0)));
  CHECK(r.trace().d_logits()(2, 3) == 0);
  CHECK(r.trace().tokens_per_expert()[3] == 0);
  CHECK(routing(3, 4, 2, 2, false).trace().d_logits().rows() == 0);
}

TEST_CASE("it notices what is written behind the last token, and without any token too") {
  for (const std::size_t tokens : {0U, 3U}) {
    routing r(tokens, 4, 2, 2);
    r.assigned().resize_tokens(tokens);
    for (std::size_t t = 0; t < tokens; ++t)
      r.assigned().offsets()[t + 1] = static_cast<hmoe::index_t>(2 * t + 2);
    r.assigned().resize_entries();
    for (std::size_t a = 0; a < 2 * tokens; ++a) {
      r.assigned().experts()[a] = static_cast<hmoe::index_t>(a % 2);
      r.assigned().weights()[a] = 1;
    }
    CHECK(r.intact());
    SUBCASE("a logit") { r.trace().logits().data()[4 * tokens] = 0; }
    SUBCASE("a probability") { r.trace().probabilities().data()[4 * tokens] = 0; }
    SUBCASE("a gradient of a logit") { r.trace().d_logits().data()[4 * tokens + 3] = 0; }
    SUBCASE("a gradient of a probability") { r.trace().d_probabilities().data()[4 * tokens] = 0; }
    SUBCASE("a saved value") { r.trace().score_saved().data()[2 * tokens] = 0; }
    SUBCASE("a gradient of a saved value") { r.trace().d_score_saved().data()[2 * tokens] = 0; }
    SUBCASE("a count") { r.trace().tokens_per_expert().data()[4] = 0; }
    SUBCASE("an offset") { r.assigned().offsets().data()[tokens + 1] = 0; }
    SUBCASE("an id") { r.assigned().experts().data()[2 * tokens] = 0; }
    SUBCASE("a weight") { r.assigned().weights().data()[2 * tokens] = 0; }
    SUBCASE("before the first logit") { r.trace().logits().data()[-1] = 0; }
    CHECK(!r.intact());
  }
}
