// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/limited_plan.hpp>
#include <hmoe/execution/workspace.hpp>

#include "dispatch/random_assignment.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <set>
#include <utility>
#include <vector>

namespace capacity = hmoe::capacity;
using hmoe::index_t;
using hmoe::no_index;
using hmoe::dispatch::spare_rows;

namespace {

/// All that a plan asks of experts.
struct widths_only {
  std::vector<std::size_t> widths;
  [[nodiscard]] std::size_t size() const { return widths.size(); }
  [[nodiscard]] std::size_t width(std::size_t e) const { return widths[e]; }
};

/// Expert e gets the e-th limit.
struct given_limits {
  std::vector<std::size_t> rows;
  void limits(const hmoe::capacity::demand& batch, hmoe::vector_view<std::size_t> limits) const {
    REQUIRE(limits.size() == batch.widths.size());
    std::copy_n(rows.begin(), limits.size(), limits.begin());
  }
};

/// Keeps what another order drops.
template <class Order> struct reversed {
  Order order;
  template <class T> double priority(const hmoe::tape<T>& tape, std::size_t token, std::size_t entry) const {
    return -order.priority(tape, token, entry);
  }
};

/// What expert e keeps, found by sorting: (token, entry) in the order of tokens.
template <class Order>
std::vector<std::pair<std::size_t, std::size_t>> kept_by(const hmoe::tape<double>& tape, std::size_t e,
                                                         std::size_t limit, const Order& order) {
  struct candidate {
    double priority;
    std::size_t token, entry;
  };
  std::vector<candidate> all;
  const auto& assigned = tape.assignment();
  for (std::size_t t = 0; t < assigned.tokens(); ++t)
    for (std::size_t a = assigned.offsets()[t]; a < assigned.offsets()[t + 1]; ++a)
      if (assigned.experts()[a] == e)
        all.push_back({order.priority(tape, t, a), t, a});
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return a.priority != b.priority ? a.priority > b.priority : a.token < b.token;
  });
  if (all.size() > limit)
    all.resize(limit);
  std::vector<std::pair<std::size_t, std::size_t>> result;
  for (const auto& c : all)
    result.emplace_back(c.token, c.entry);
  std::sort(result.begin(), result.end());
  return result;
}

template <class Order>
void check_plan(const hmoe::tape<double>& tape, const std::vector<std::size_t>& limits, const Order& order,
                bool padding) {
  const hmoe::plan& plan = tape.plan();
  const auto& assigned = tape.assignment();
  REQUIRE(plan.expert_count() == limits.size());
  REQUIRE(plan.slots().size() == assigned.size());
  REQUIRE(plan.offsets()[limits.size()] == plan.size());
  std::size_t kept_in_all = 0, padding_in_all = 0;
  std::set<std::size_t> kept_entries;
  for (std::size_t e = 0; e < limits.size(); ++e) {
    const auto expected = kept_by(tape, e, limits[e], order);
    const bool padded = padding && limits[e] != capacity::unlimited;
    const std::size_t rows = padded ? std::min(limits[e], assigned.tokens()) : expected.size();
    REQUIRE(plan.rows_of(e) == rows);
    for (std::size_t i = 0; i < rows; ++i) {
      const std::size_t slot = plan.offsets()[e] + i;
      if (i < expected.size()) {
        CHECK(plan.tokens()[slot] == expected[i].first);
        CHECK(plan.entries()[slot] == expected[i].second);
        CHECK(plan.slots()[expected[i].second] == slot);
        kept_entries.insert(expected[i].second);
      } else {
        CHECK(plan.tokens()[slot] == no_index);
        CHECK(plan.entries()[slot] == no_index);
      }
    }
    kept_in_all += expected.size();
    padding_in_all += rows - expected.size();
  }
  for (std::size_t a = 0; a < assigned.size(); ++a)
    CHECK((plan.slots()[a] == no_index) == !kept_entries.contains(a));
  CHECK(plan.dropped() == assigned.size() - kept_in_all);
  CHECK(plan.padding() == padding_in_all);
}

template <class Order> void check_order(const Order& order, std::uint64_t seed) {
  support::random_source random(seed);
  hmoe::workspace memory;
  for (int i = 0; i < 60; ++i) {
    const std::size_t tokens = random.size(0, 40), experts = random.size(1, 7), shared = random.size(0, experts - 1);
    hmoe::tape<double> tape;
    tape.trace().resize(tokens, experts - shared, 0, true);
    dispatch_checks::assign_randomly(random, tokens, experts, shared, tape.assignment());
    std::vector<std::size_t> limits(experts, capacity::unlimited);
    for (std::size_t e = 0; e + shared < experts; ++e)
      if (random.size(0, 4) != 0)
        limits[e] = random.size(0, tokens + 3);
    for (const auto spare : {spare_rows::none, spare_rows::padding}) {
      const hmoe::workspace::scope scope(memory);
      hmoe::dispatch::build_limited_plan(widths_only{std::vector<std::size_t>(experts, 4)}, tape, given_limits{limits},
                                         order, spare, &memory);
      check_plan(tape, limits, order, spare == spare_rows::padding);
    }
  }
}

} // namespace

TEST_CASE("plans over random assignments keep what the order says, and nothing else") {
  check_order(capacity::keep_first{}, 31);
  check_order(capacity::keep_heaviest{}, 32);
  check_order(capacity::keep_first_choices{}, 33);
  check_order(capacity::keep_random{hmoe::seed{9}}, 34);
  check_order(reversed<capacity::keep_heaviest>{}, 35);
}

TEST_CASE("without a capacity the plan is the plain one") {
  support::random_source random(36);
  hmoe::tape<double> tape, plain;
  dispatch_checks::assign_randomly(random, 30, 5, 0, tape.assignment());
  plain.assignment() = tape.assignment();
  const widths_only experts{{1, 2, 3, 4, 5}};
  hmoe::dispatch::build_plan(std::as_const(plain).assignment(), 5, plain.plan());
  const auto same = [&] {
    const auto equal = [](auto a, auto b) { return std::ranges::equal(a, b); };
    const hmoe::plan &a = tape.plan(), &b = plain.plan();
    return equal(a.offsets(), b.offsets()) && equal(a.tokens(), b.tokens()) && equal(a.entries(), b.entries()) &&
           equal(a.slots(), b.slots()) && a.dropped() == 0 && a.padding() == 0;
  };
  auto* memory = std::pmr::null_memory_resource(); // and it needs no memory
  hmoe::dispatch::build_limited_plan(experts, tape, capacity::no_capacity{}, capacity::keep_first{}, spare_rows::none,
                                     memory);
  CHECK(same());
  hmoe::dispatch::build_limited_plan(experts, tape, capacity::by_factor{1e9}, capacity::keep_heaviest{},
                                     spare_rows::none, std::pmr::get_default_resource());
  CHECK(same());
}

TEST_CASE("entries with a NaN weight are dropped first") {
  hmoe::tape<double> tape;
  auto& assigned = tape.assignment();
  assigned.resize_tokens(3);
  for (index_t t = 0; t < 3; ++t)
    assigned.offsets()[t + 1] = t + 1;
  assigned.resize_entries();
  std::ranges::fill(assigned.experts(), index_t{0});
  assigned.weights()[0] = std::numeric_limits<double>::quiet_NaN();
  assigned.weights()[1] = 0.1;
  assigned.weights()[2] = 0.2;
  hmoe::dispatch::build_limited_plan(widths_only{{1}}, tape, given_limits{{2}}, capacity::keep_heaviest{},
                                     spare_rows::none, std::pmr::get_default_resource());
  CHECK(tape.plan().slots()[0] == no_index);
  CHECK(tape.plan().slots()[1] == 0);
  CHECK(tape.plan().slots()[2] == 1);
}

TEST_CASE("the load that a capacity sees is that of the routed experts") {
  struct probe {
    hmoe::capacity::demand* seen;
    std::vector<std::size_t>* rows;
    std::vector<std::size_t>* widths;
    void limits(const hmoe::capacity::demand& batch, hmoe::vector_view<std::size_t> limits) const {
      *seen = batch;
      rows->assign(batch.rows.begin(), batch.rows.end());
      widths->assign(batch.widths.begin(), batch.widths.end());
      std::fill(limits.begin(), limits.end(), hmoe::capacity::unlimited);
    }
  };
  support::random_source random(37);
  hmoe::tape<double> tape;
  tape.trace().resize(20, 3, 0, true);
  dispatch_checks::assign_randomly(random, 20, 5, 2, tape.assignment());
  hmoe::capacity::demand seen;
  std::vector<std::size_t> rows, widths;
  hmoe::dispatch::build_limited_plan(widths_only{{7, 8, 9, 10, 11}}, tape, probe{&seen, &rows, &widths},
                                     capacity::keep_first{}, spare_rows::padding, std::pmr::get_default_resource());
  CHECK(seen.tokens == 20);
  CHECK(seen.entries == tape.assignment().size() - 40);
  CHECK(widths == std::vector<std::size_t>{7, 8, 9});
  CHECK(rows.size() == 3);
  CHECK(rows[0] + rows[1] + rows[2] == seen.entries);
  CHECK(tape.plan().rows_of(4) == 20);
  CHECK(tape.plan().padding() == 0);
}

TEST_CASE("planning takes no more workspace than announced") {
  support::random_source random(38);
  for (int i = 0; i < 20; ++i) {
    const std::size_t tokens = random.size(0, 200), experts = random.size(1, 40);
    hmoe::tape<double> tape;
    dispatch_checks::assign_randomly(random, tokens, experts, 0, tape.assignment());
    hmoe::workspace memory;
    const hmoe::workspace::scope scope(memory);
    hmoe::dispatch::build_limited_plan(widths_only{std::vector<std::size_t>(experts, 1)}, tape, capacity::fixed{3},
                                       capacity::keep_heaviest{}, spare_rows::padding, &memory);
    hmoe::workspace dry{hmoe::dry_run{}};
    const hmoe::workspace::scope dry_scope(dry);
    const hmoe::dispatch::planning_memory<capacity::fixed, capacity::keep_heaviest> announced(&dry, experts, experts,
                                                                                              tape.assignment().size());
    CHECK(memory.peak() == dry.peak());
  }
  hmoe::workspace dry{hmoe::dry_run{}};
  const hmoe::workspace::scope scope(dry);
  const hmoe::dispatch::planning_memory<capacity::no_capacity, capacity::keep_heaviest> nothing(&dry, 10, 10, 100);
  CHECK(dry.peak() == 0);
}

TEST_CASE("limits per group: each group is planned as a batch of its own") {
  support::random_source random(39);
  std::size_t drops = 0;
  for (int i = 0; i < 30; ++i) {
    const std::size_t tokens = random.size(0, 60), experts = random.size(1, 8), size = random.size(1, 20);
    const widths_only set{std::vector<std::size_t>(experts, 4)};
    hmoe::tape<double> whole;
    dispatch_checks::assign_randomly(random, tokens, experts, 0, whole.assignment());
    const auto& assigned = std::as_const(whole).assignment();
    const capacity::by_factor inner{0.7};
    auto* memory = std::pmr::get_default_resource();
    hmoe::dispatch::build_limited_plan(set, whole, capacity::per_group<>{.tokens = size, .inner = inner},
                                       capacity::keep_heaviest{}, spare_rows::padding, memory);
    std::size_t slots = 0;
    for (std::size_t from = 0; from < tokens; from += size) {
      const std::size_t count = std::min(size, tokens - from), first = assigned.offsets()[from];
      hmoe::tape<double> part;
      part.assignment().resize_tokens(count);
      for (std::size_t t = 0; t < count; ++t)
        part.assignment().offsets()[t + 1] = assigned.offsets()[from + t + 1] - static_cast<index_t>(first);
      part.assignment().resize_entries();
      for (std::size_t a = 0; a < part.assignment().size(); ++a) {
        part.assignment().experts()[a] = assigned.experts()[first + a];
        part.assignment().weights()[a] = assigned.weights()[first + a];
      }
      hmoe::dispatch::build_limited_plan(set, part, inner, capacity::keep_heaviest{}, spare_rows::padding, memory);
      slots += part.plan().size();
      for (std::size_t a = 0; a < part.assignment().size(); ++a) {
        CHECK((part.plan().slots()[a] == no_index) == (whole.plan().slots()[first + a] == no_index));
        drops += part.plan().slots()[a] == no_index ? 1 : 0;
      }
    }
    CHECK(whole.plan().size() == slots);
    for (std::size_t a = 0; a < assigned.size(); ++a)
      if (const index_t slot = whole.plan().slots()[a]; slot != no_index)
        CHECK(whole.plan().entries()[slot] == a);
  }
  CHECK(drops > 100);
}
