// SPDX-License-Identifier: MIT
#include <hmoe/losses/choice_counts.hpp>
#include <hmoe/losses/load_balance.hpp>

#include "losses/sink_checks.hpp"

#include <doctest/doctest.h>

using hmoe::losses::balance_counts;
using hmoe::losses::balance_normalization;
using hmoe::losses::load_balance;

namespace {

constexpr balance_counts both_counts[] = {balance_counts::all_choices, balance_counts::first_choice};
constexpr balance_normalization both_normalizations[] = {balance_normalization::to_k, balance_normalization::to_one};

/// The formula once more, by a table of who counts.
double formula(const support::routing_batch& batch, balance_counts counts, balance_normalization normalization) {
  const std::size_t experts = batch.experts();
  std::vector<double> n(experts);
  double sum = 0;
  for (std::size_t t = 0; t < batch.tokens(); ++t) {
    std::vector<bool> selected(experts);
    for (const hmoe::index_t e : batch.assigned.experts_of(t))
      selected[e] = true;
    std::size_t best = experts;
    for (std::size_t e = experts; e-- > 0;) // downwards with >=, so that the lower id wins a tie
      if (selected[e] && (best == experts || batch.trace.probabilities()(t, e) >= batch.trace.probabilities()(t, best)))
        best = e;
    for (std::size_t e = 0; e < experts; ++e)
      if (counts == balance_counts::all_choices ? bool(selected[e]) : e == best) {
        n[e] += 1;
        sum += 1;
      }
  }
  const double divisor = normalization == balance_normalization::to_k ? static_cast<double>(batch.tokens()) : sum;
  double value = 0;
  for (std::size_t e = 0; e < experts; ++e)
    value += static_cast<double>(experts) * n[e] / divisor * batch.mean_probability(e);
  return value;
}

} // namespace

TEST_CASE("load_balance in all conventions agrees with the formula") {
  support::random_source random(71);
  for (const std::size_t tokens : {1U, 3U, 19U}) {
    support::routing_batch batch(tokens, 6);
    batch.randomize(random);
    batch.set([&](std::size_t, std::size_t) { return random.real(-2, 2); },
              [&](std::size_t t, std::size_t e) { return e == t % 6 || random.real() > 0; });
    for (const auto counts : both_counts)
      for (const auto normalization : both_normalizations) {
        const load_balance loss{0.7, counts, normalization};
        CHECK(batch.evaluate(loss) == doctest::Approx(formula(batch, counts, normalization)).epsilon(1e-13));
        CHECK(support::sink_error(batch, loss) < 1e-6);
        CHECK(support::softmax_error(batch, loss) < 1e-6);
      }
  }
}

TEST_CASE("at balance: K or 1 for all choices, 1 for the first") {
  for (const std::size_t k : {1U, 2U, 4U}) {
    support::routing_batch batch(8, 4);
    const auto chosen = [&](std::size_t t, std::size_t e) { return (e + 4 - t % 4) % 4 < k; };
    // The expert t mod 4 is the most probable by a trifle, so that first choices are balanced too.
    batch.set([](std::size_t t, std::size_t e) { return e == t % 4 ? 1e-9 : 0.0; }, chosen);
    const auto value = [&](balance_counts counts, balance_normalization normalization) {
      return batch.evaluate(load_balance{1, counts, normalization});
    };
    const auto one = doctest::Approx(1).epsilon(1e-8);
    CHECK(value(balance_counts::all_choices, balance_normalization::to_k) ==
          doctest::Approx(static_cast<double>(k)).epsilon(1e-8));
    CHECK(value(balance_counts::all_choices, balance_normalization::to_one) == one);
    CHECK(value(balance_counts::first_choice, balance_normalization::to_k) == one);
    CHECK(value(balance_counts::first_choice, balance_normalization::to_one) == one);
  }
}

TEST_CASE("to_one is to_k divided by K, and with one choice a token the conventions are one") {
  support::random_source random(72);
  support::routing_batch batch(30, 5);
  const auto logits = [&](std::size_t, std::size_t) { return random.real(-1, 1); };
  for (const std::size_t k : {1U, 2U, 3U}) {
    batch.set(logits, [&](std::size_t t, std::size_t e) { return (e + t * t) % 5 < k; });
    const double to_k = batch.evaluate(load_balance{1});
    const double to_one = batch.evaluate(load_balance{1, balance_counts::all_choices, balance_normalization::to_one});
    CHECK(to_one == doctest::Approx(to_k / static_cast<double>(k)).epsilon(1e-13));
    if (k == 1) {
      CHECK(batch.evaluate(load_balance{1, balance_counts::first_choice}) == to_k);
      CHECK(batch.evaluate(load_balance{1, balance_counts::first_choice, balance_normalization::to_one}) == to_k);
    }
  }
}

TEST_CASE("the first choice is the most probable selected expert, the lower id on ties") {
  support::routing_batch batch(1, 4);
  batch.set([](std::size_t, std::size_t e) { return e == 0   ? 2.0
                                                    : e == 3 ? -1.0
                                                             : 0.5; },
            [](std::size_t, std::size_t e) { return e != 0; }); // the most probable expert of all is not selected
  // f = (0, 1, 0, 0), although expert 2 is as probable
  CHECK(batch.evaluate(load_balance{1, balance_counts::first_choice}) ==
        doctest::Approx(4 * batch.mean_probability(1)).epsilon(1e-14));
  for (std::size_t e = 0; e < 4; ++e)
    CHECK(batch.trace.d_probabilities()(0, e) == (e == 1 ? 4 : 0));
}

TEST_CASE("shared experts, whose ids come behind the routed ones, do not count") {
  support::random_source random(73);
  support::routing_batch batch(4, 3);
  batch.randomize(random);
  const double before = batch.evaluate(load_balance{1, balance_counts::all_choices, balance_normalization::to_one});
  hmoe::assignment<double> with_shared;
  with_shared.resize_tokens(4);
  for (std::size_t t = 0; t < 4; ++t)
    with_shared.offsets()[t + 1] = batch.assigned.offsets()[t + 1] + static_cast<hmoe::index_t>(t + 1);
  with_shared.resize_entries();
  for (std::size_t t = 0; t < 4; ++t) {
    const auto ids = std::as_const(batch).assigned.experts_of(t);
    hmoe::index_t* to = with_shared.experts().data() + with_shared.offsets()[t];
    *std::copy(ids.begin(), ids.end(), to) = 3;
  }
  batch.assigned = with_shared;
  CHECK(batch.evaluate(load_balance{1, balance_counts::all_choices, balance_normalization::to_one}) == before);
}

TEST_CASE("no token, and no token with an expert, give 0") {
  for (const std::size_t tokens : {0U, 3U})
    for (const auto counts : both_counts)
      for (const auto normalization : both_normalizations) {
        support::routing_batch batch(tokens, 4);
        CHECK(batch.evaluate(load_balance{1, counts, normalization}) == 0);
      }
}

TEST_CASE("choices are counted for a part of the batch, and rates have nothing to divide by without any") {
  support::routing_batch batch(4, 3);
  batch.set([](std::size_t t, std::size_t e) { return t == e ? 1.0 : 0.0; },
            [](std::size_t t, std::size_t e) { return t != 3 && e <= t; }); // 1, 2, 3 and no experts
  hmoe::routed_batch<double> routed{batch.trace, batch.assigned, batch.widths};
  namespace detail = hmoe::losses::detail;
  std::vector<double> counts(3);
  const hmoe::vector_view<double> view(counts);
  CHECK(detail::count_choices(routed, balance_counts::all_choices, 1, 4, view) == 5);
  CHECK(counts == std::vector<double>{2, 2, 1});
  CHECK(detail::count_choices(routed, balance_counts::first_choice, 0, 4, view) == 3);
  CHECK(counts == std::vector<double>{3, 3, 2});
  CHECK(detail::choice_rate(3, detail::choice_divisor(balance_normalization::to_k, 4, 8)) == 0.75);
  CHECK(detail::choice_rate(3, detail::choice_divisor(balance_normalization::to_one, 4, 8)) == 0.375);
  CHECK(detail::choice_rate(0, 0) == 0);
}
