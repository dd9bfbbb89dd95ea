// SPDX-License-Identifier: MIT
#include <hmoe/core/tape.hpp>

#include "support/counting_resource.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <memory_resource>
#include <vector>

TEST_CASE("a fresh tape records and holds no pass") {
  hmoe::tape<float> tape;
  CHECK(tape.recording());
  CHECK(!tape.complete());
  tape.set_complete(true);
  CHECK(tape.complete());
  CHECK(!hmoe::tape<float>(std::pmr::get_default_resource(), false).recording());
}

TEST_CASE("activations of experts of unequal width lie one behind the other and do not overlap") {
  support::random_source random(6);
  for (int round = 0; round < 20; ++round) {
    const std::size_t experts = random.size(1, 8);
    std::vector<std::size_t> rows(experts), saved(experts);
    for (std::size_t e = 0; e < experts; ++e) {
      rows[e] = random.size(0, 5);
      saved[e] = random.size(0, 9); // 0: a kind that saves nothing
    }
    hmoe::tape<double> tape;
    tape.layout_activations(experts, [&](std::size_t e) { return rows[e]; }, [&](std::size_t e) { return saved[e]; });
    double next = 0;
    for (std::size_t e = 0; e < experts; ++e) {
      const auto view = tape.activations(e, rows[e]);
      REQUIRE(view.rows() == rows[e]);
      REQUIRE(view.cols() == (rows[e] == 0 ? 0 : saved[e]));
      for (std::size_t r = 0; r < view.rows(); ++r)
        for (double& value : view.row(r))
          value = next++;
    }
    next = 0;
    for (std::size_t e = 0; e < experts; ++e) {
      const auto view = tape.activations(e, rows[e]);
      for (std::size_t r = 0; r < view.rows(); ++r)
        for (const double value : view.row(r))
          CHECK(value == next++);
    }
  }
}

TEST_CASE("after reserve, batches up to that size allocate nothing") {
  support::counting_resource heap;
  hmoe::tape<float> tape(&heap, true);
  const std::size_t tokens = 20, d = 6, experts = 5, score_saved = 3, entries = 40, per_slot = 7;
  tape.reserve(tokens, d, experts, score_saved, entries, entries, entries * per_slot);
  const int reserved = heap.allocations;
  CHECK(reserved > 0);
  for (const std::size_t t : {20U, 0U, 1U, 13U, 20U}) {
    tape.trace().resize(t, experts, score_saved, true);
    tape.assignment().resize_tokens(t);
    for (std::size_t i = 0; i < t; ++i)
      tape.assignment().offsets()[i + 1] = static_cast<hmoe::index_t>(2 * (i + 1));
    tape.assignment().resize_entries();
    tape.plan().resize(experts, 2 * t, 2 * t);
    tape.input().resize_for_overwrite(t, d);
    tape.expert_output().resize_for_overwrite(2 * t, d);
    tape.layout_activations(
        experts, [&](std::size_t e) { return e == 0 ? 2 * t : 0; }, [&](std::size_t) { return per_slot; });
    CHECK(tape.activations(0, 2 * t).size() == 2 * t * per_slot);
    CHECK(heap.allocations == reserved);
  }
}

TEST_CASE("a tape keeps what a strategy adds, until another type is asked for, and copies it") {
  struct numbers {
    int value = 3;
  };
  hmoe::tape<float> tape;
  CHECK(tape.kept<numbers>().value == 3);
  tape.kept<numbers>().value = 5;
  hmoe::tape<float> copy = tape;
  CHECK(copy.kept<numbers>().value == 5);
  copy.kept<numbers>().value = 6;
  CHECK(tape.kept<numbers>().value == 5);
  CHECK(tape.kept<double>() == 0);
  CHECK(tape.kept<numbers>().value == 3); // anew
}
