// SPDX-License-Identifier: MIT
#include <hmoe/core/plan.hpp>
#include <hmoe/execution/workspace.hpp>

#include <doctest/doctest.h>

#include <algorithm>

TEST_CASE("counts of a plan") {
  hmoe::plan plan;
  CHECK(plan.expert_count() == 0);
  CHECK(plan.size() == 0);
  CHECK(plan.dropped() == 0);

  plan.resize(3, 4, 6); // two of six entries dropped
  CHECK(plan.expert_count() == 3);
  CHECK(plan.size() == 4);
  CHECK(plan.dropped() == 2);
  CHECK(plan.tokens().size() == 4);
  CHECK(plan.entries().size() == 4);
  CHECK(plan.slots().size() == 6);
  CHECK(std::ranges::all_of(plan.offsets(), [](hmoe::index_t offset) { return offset == 0; }));
  std::ranges::copy(std::initializer_list<hmoe::index_t>{0, 1, 1, 4}, plan.offsets().begin());
  CHECK(plan.rows_of(0) == 1);
  CHECK(plan.rows_of(1) == 0);
  CHECK(plan.rows_of(2) == 3);

  plan.resize(3, 0, 0);
  CHECK(plan.rows_of(2) == 0); // offsets start from zero again
}

TEST_CASE("after reserve, a plan of that size takes no more memory") {
  for (const std::size_t experts : {0U, 1U, 7U, 40U})
    for (const std::size_t entries : {0U, 1U, 33U, 100U})
      for (const std::size_t slots : {0U, 20U, 300U}) {
        hmoe::workspace memory;
        const hmoe::workspace::scope scope(memory);
        hmoe::plan plan(&memory);
        plan.reserve(experts, std::max(slots, entries), entries);
        CHECK(plan.size() == 0);
        CHECK(plan.expert_count() == 0);
        const std::size_t reserved = memory.peak();
        plan.resize(experts, entries, entries);
        if (slots > entries)
          plan.resize_slots(slots, slots - entries);
        CHECK(memory.peak() == reserved);
      }
}

TEST_CASE("padding slots are counted apart from dropped entries") {
  hmoe::plan plan;
  plan.resize(2, 3, 5);
  CHECK(plan.padding() == 0);
  CHECK(plan.dropped() == 2);
  plan.offsets()[2] = 4;
  plan.slots()[4] = 7;
  plan.resize_slots(4, 3); // 4 slots, 3 of them empty: one of five entries has a slot
  CHECK(plan.size() == 4);
  CHECK(plan.tokens().size() == 4);
  CHECK(plan.padding() == 3);
  CHECK(plan.dropped() == 4);
  CHECK(plan.offsets()[2] == 4);
  CHECK(plan.slots()[4] == 7);
  plan.resize(2, 3, 5);
  CHECK(plan.padding() == 0);
}
