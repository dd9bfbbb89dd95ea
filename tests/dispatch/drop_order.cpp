// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/drop_order.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

namespace capacity = hmoe::capacity;

namespace {

// Token 0 has experts 0, 2, 3 with weights .25, .5, .25; token 1 has expert 2 with weight 1.
hmoe::tape<float> two_tokens() {
  hmoe::tape<float> tape;
  auto& assigned = tape.assignment();
  assigned.resize_tokens(2);
  assigned.offsets()[1] = 3;
  assigned.offsets()[2] = 4;
  assigned.resize_entries();
  std::ranges::copy(std::vector<hmoe::index_t>{0, 2, 3, 2}, assigned.experts().begin());
  std::ranges::copy(std::vector<float>{0.25F, 0.5F, 0.25F, 1}, assigned.weights().begin());
  return tape;
}

} // namespace

static_assert(hmoe::drop_order<capacity::keep_first>);
static_assert(hmoe::drop_order<capacity::keep_heaviest>);
static_assert(hmoe::drop_order<capacity::keep_first_choices>);
static_assert(hmoe::drop_order<capacity::keep_random>);
static_assert(!hmoe::drop_order<int>);

TEST_CASE("priorities by position and by weight") {
  const auto tape = two_tokens();
  CHECK(capacity::keep_first::priority(tape, 0, 1) == capacity::keep_first::priority(tape, 1, 3));
  CHECK(capacity::keep_heaviest::priority(tape, 0, 1) == 0.5);
  CHECK(capacity::keep_heaviest::priority(tape, 1, 3) == 1);
}

TEST_CASE("choices rank by weight, ties by expert id") {
  const auto tape = two_tokens();
  CHECK(capacity::keep_first_choices::priority(tape, 0, 1) == 0);  // heaviest of its token
  CHECK(capacity::keep_first_choices::priority(tape, 0, 0) == -1); // tie with expert 3
  CHECK(capacity::keep_first_choices::priority(tape, 0, 2) == -2);
  CHECK(capacity::keep_first_choices::priority(tape, 1, 3) == 0);
}

TEST_CASE("lots are a function of key, step, token and expert") {
  auto tape = two_tokens();
  const capacity::keep_random order{hmoe::seed{5}}, other{hmoe::seed{6}};
  const double first = order.priority(tape, 0, 1);
  CHECK(first > 0);
  CHECK(first < 1);
  CHECK(order.priority(tape, 0, 1) == first);
  CHECK(order.priority(tape, 1, 3) != first); // the same expert, another token
  CHECK(order.priority(tape, 0, 2) != first); // the same token, another expert
  CHECK(other.priority(tape, 0, 1) != first); // another key
  hmoe::routing_inputs<float> inputs;
  inputs.noise = hmoe::noise_source{hmoe::seed{1}, 0};
  tape.trace().set_inputs(inputs);
  CHECK(order.priority(tape, 0, 1) == first); // the key of the noise does not matter, and without noise the step is 0
  inputs.noise->step = 1;
  tape.trace().set_inputs(inputs);
  CHECK(order.priority(tape, 0, 1) != first);
}

TEST_CASE("lots are uniform") {
  const auto tape = two_tokens();
  const capacity::keep_random order{hmoe::seed{7}};
  double sum = 0;
  for (std::size_t token = 0; token < 20000; ++token)
    sum += order.priority(tape, token, 1) / 20000;
  CHECK(sum == doctest::Approx(0.5).epsilon(0.02));
}
