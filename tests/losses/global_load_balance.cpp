// SPDX-License-Identifier: MIT
#include <hmoe/losses/global_load_balance.hpp>
#include <hmoe/losses/load_balance.hpp>

#include "losses/sink_checks.hpp"

#include <doctest/doctest.h>

#include <vector>

using hmoe::losses::balance_counts;
using hmoe::losses::balance_normalization;
using hmoe::losses::global_load_balance;
using hmoe::losses::load_accumulator;

namespace {

hmoe::routed_batch<double> routed(support::routing_batch& batch) { return {batch.trace, batch.assigned, batch.widths}; }

} // namespace

TEST_CASE("f is of all batches, P̂ of this one") {
  support::random_source random(101);
  support::routing_batch first(6, 4), second(9, 4);
  first.randomize(random);
  second.randomize(random);
  load_accumulator load(4);
  load.add(routed(first));
  load.add(routed(second));
  double to_k = 0, sum = 0;
  for (std::size_t e = 0; e < 4; ++e) {
    const double n = first.trace.tokens_per_expert()[e] + second.trace.tokens_per_expert()[e];
    to_k += 4 * n / 15 * second.mean_probability(e);
    sum += n;
  }
  const global_load_balance loss{0.6, &load}, to_one{0.6, &load, balance_normalization::to_one};
  CHECK(second.evaluate(loss) == doctest::Approx(to_k).epsilon(1e-13));
  CHECK(second.evaluate(to_one) == doctest::Approx(to_k * 15 / sum).epsilon(1e-13));
  CHECK(support::sink_error(second, loss) < 1e-6);
  CHECK(support::softmax_error(second, to_one) < 1e-6);
}

TEST_CASE("with this batch alone it is load_balance, bit for bit") {
  support::random_source random(102);
  for (const auto counts : {balance_counts::all_choices, balance_counts::first_choice})
    for (const auto normalization : {balance_normalization::to_k, balance_normalization::to_one}) {
      support::routing_batch batch(7, 5);
      batch.randomize(random);
      load_accumulator load(5, counts);
      load.add(routed(batch));
      CHECK(batch.evaluate(global_load_balance{1, &load, normalization}) ==
            batch.evaluate(hmoe::losses::load_balance{1, counts, normalization}));
    }
}

TEST_CASE("a batch that lacks some experts is balanced if the others make up for it") {
  load_accumulator load(4);
  support::routing_batch low(4, 4), high(4, 4);
  low.set([](std::size_t, std::size_t) { return 0.0; }, [](std::size_t, std::size_t e) { return e < 2; });
  high.set([](std::size_t, std::size_t) { return 0.0; }, [](std::size_t, std::size_t e) { return e >= 2; });
  load.add(routed(low));
  load.add(routed(high));
  const auto two = doctest::Approx(2).epsilon(1e-14);
  CHECK(low.evaluate(global_load_balance{1, &load}) == two);
  CHECK(low.trace.d_probabilities()(0, 0) == low.trace.d_probabilities()(0, 3)); // no expert is pushed
  CHECK(high.evaluate(global_load_balance{1, &load}) == two);
  CHECK(high.evaluate(global_load_balance{1, &load, balance_normalization::to_one}) ==
        doctest::Approx(1).epsilon(1e-14));
}

TEST_CASE("one accumulator shared by layers: the loss over all (layer, token) pairs, values and gradients") {
  support::random_source random(104);
  constexpr std::size_t layers = 3, tokens = 6, experts = 4;
  std::vector<support::routing_batch> batches(layers, support::routing_batch(tokens, experts));
  support::routing_batch all(layers * tokens, experts);
  load_accumulator load(experts);
  for (auto& batch : batches) {
    batch.randomize(random);
    load.add(routed(batch));
  }
  const auto chosen = [&](std::size_t t, std::size_t e) {
    for (const hmoe::index_t id : batches[t / tokens].assigned.experts_of(t % tokens))
      if (id == e)
        return true;
    return false;
  };
  all.set([&](std::size_t t, std::size_t e) { return batches[t / tokens].trace.logits()(t % tokens, e); }, chosen);
  const double expected = 0.6 * all.evaluate(hmoe::losses::load_balance{0.6});
  const global_load_balance loss{0.6 / layers, &load};
  double sum = 0;
  for (std::size_t l = 0; l < layers; ++l) {
    sum += loss.coefficient * batches[l].evaluate(loss);
    for (std::size_t e = 0; e < experts; ++e)
      CHECK(batches[l].trace.d_probabilities()(2, e) ==
            doctest::Approx(all.trace.d_probabilities()(l * tokens + 2, e)).epsilon(1e-13));
  }
  CHECK(sum == doctest::Approx(expected).epsilon(1e-13));
}

TEST_CASE("mistakes are told") {
  support::routing_batch batch(3, 4), none(0, 4);
  CHECK_THROWS_WITH_AS(batch.evaluate(global_load_balance{}), doctest::Contains("set its member load"), hmoe::error);
  load_accumulator load(4), other(5);
  CHECK_THROWS_WITH_AS(batch.evaluate(global_load_balance{1, &load}), doctest::Contains("add(batch) first"),
                       hmoe::error);
  CHECK_THROWS_WITH_AS(batch.evaluate(global_load_balance{1, &other}), doctest::Contains("counts 5 experts"),
                       hmoe::error);
  CHECK(none.evaluate(global_load_balance{1, &load}) == 0);
}
