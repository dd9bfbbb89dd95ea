// SPDX-License-Identifier: MIT
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/workspace.hpp>

#include <doctest/doctest.h>

#include <algorithm>

TEST_CASE("a trace with gradient sinks that start, and start again, at zero") {
  hmoe::router_trace<double> trace;
  CHECK(trace.tokens() == 0);
  trace.resize(3, 5, 2, true);
  CHECK(trace.tokens() == 3);
  CHECK(trace.expert_count() == 5);
  CHECK(trace.probabilities().rows() == 3);
  CHECK(trace.probabilities().cols() == 5);
  CHECK(trace.score_saved().rows() == 3);
  CHECK(trace.score_saved().cols() == 2);
  CHECK(trace.tokens_per_expert().size() == 5);
  CHECK(trace.d_logits().size() == 15);
  trace.d_logits()(2, 4) = 1;
  trace.d_probabilities()(0, 0) = 1;
  trace.tokens_per_expert()[4] = 3;

  trace.resize(3, 5, 2, true);
  CHECK(trace.d_logits()(2, 4) == 0);
  CHECK(trace.d_probabilities()(0, 0) == 0);
  CHECK(trace.tokens_per_expert()[4] == 0);

  trace.d_logits()(1, 1) = 2;
  trace.d_probabilities()(1, 1) = 2;
  trace.clear_gradients();
  CHECK(trace.d_logits()(1, 1) == 0);
  CHECK(trace.d_probabilities()(1, 1) == 0);
}

TEST_CASE("a trace for inference has no sinks, and resize_for_overwrite takes the same memory") {
  for (const std::size_t tokens : {0U, 1U, 13U, 100U})
    for (const std::size_t experts : {1U, 5U, 16U}) {
      const std::size_t saved = experts % 5; // 0: most scores save nothing
      hmoe::workspace memory;
      const hmoe::workspace::scope scope(memory);
      hmoe::router_trace<float> trace(&memory);
      trace.resize(tokens, experts, saved, false);
      hmoe::workspace dry{hmoe::dry_run{}};
      const hmoe::workspace::scope dry_scope(dry);
      hmoe::router_trace<float> counted(&dry);
      counted.resize_for_overwrite(tokens, experts, saved, false);
      CHECK(memory.peak() == dry.peak());
      CHECK(dry.peak() >= (2 * tokens * experts + tokens * saved) * sizeof(float));
      CHECK(trace.d_logits().size() == 0);
      CHECK(trace.d_probabilities().size() == 0);
    }
}
