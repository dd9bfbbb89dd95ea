// SPDX-License-Identifier: MIT
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/sequence_balance.hpp>

#include "losses/sink_checks.hpp"

#include <doctest/doctest.h>

using hmoe::losses::balance_counts;
using hmoe::losses::balance_normalization;
using hmoe::losses::sequence_balance;

namespace {

void set_sequences(support::routing_batch& batch, const std::vector<hmoe::index_t>& offsets) {
  hmoe::routing_inputs<double> inputs;
  inputs.sequence_offsets = offsets;
  batch.trace.set_inputs(inputs);
}

} // namespace

TEST_CASE("sequence_balance is DeepSeek-V3's loss of each sequence, averaged") {
  support::random_source random(81);
  const std::vector<hmoe::index_t> offsets{0, 3, 3, 4, 11}; // one of four sequences is empty
  support::routing_batch batch(11, 5);
  batch.randomize(random);
  batch.set([](std::size_t, std::size_t) { return 0.0; },
            [](std::size_t t, std::size_t e) { return (e + 2 * t) % 5 < 2; });
  support::spread_probabilities(random, batch);
  set_sequences(batch, offsets);
  double expected = 0;
  for (const auto& [first, last] : {std::pair{0U, 3U}, std::pair{3U, 4U}, std::pair{4U, 11U}}) {
    const double length = last - first;
    for (std::size_t i = 0; i < 5; ++i) {
      double n = 0, p = 0;
      for (std::size_t t = first; t < last; ++t) {
        double sum = 0;
        for (std::size_t j = 0; j < 5; ++j)
          sum += batch.trace.probabilities()(t, j);
        p += batch.trace.probabilities()(t, i) / sum;
        n += (i + 2 * t) % 5 < 2 ? 1 : 0;
      }
      expected += 5 / (2 * length) * n * (p / length) / 3; // f_i P_i, mean over three sequences
    }
  }
  const sequence_balance loss{0.8};
  CHECK(batch.evaluate(loss) == doctest::Approx(expected).epsilon(1e-13));
  CHECK(support::sink_error(batch, loss) < 1e-6);
}

TEST_CASE("its gradient in every convention, with sequences") {
  support::random_source random(82);
  const std::vector<hmoe::index_t> offsets{0, 2, 7};
  for (const auto counts : {balance_counts::all_choices, balance_counts::first_choice})
    for (const auto normalization : {balance_normalization::to_k, balance_normalization::to_one})
      for (const bool normalize : {false, true}) {
        support::routing_batch batch(7, 4);
        batch.randomize(random);
        support::spread_probabilities(random, batch);
        set_sequences(batch, offsets);
        CHECK(support::sink_error(batch, sequence_balance{0.8, counts, normalization, normalize}) < 1e-6);
      }
}

TEST_CASE("one sequence, softmax probabilities: the same as load_balance") {
  support::random_source random(83);
  const std::vector<hmoe::index_t> whole{0, 9}, not_given;
  support::routing_batch batch(9, 4);
  batch.randomize(random);
  for (const auto counts : {balance_counts::all_choices, balance_counts::first_choice})
    for (const auto normalization : {balance_normalization::to_k, balance_normalization::to_one})
      for (const bool given : {false, true}) {
        set_sequences(batch, given ? whole : not_given);
        const double expected = batch.evaluate(hmoe::losses::load_balance{1, counts, normalization});
        CHECK(batch.evaluate(sequence_balance{1, counts, normalization}) == doctest::Approx(expected).epsilon(1e-13));
        CHECK(batch.evaluate(sequence_balance{1, counts, normalization, false}) ==
              doctest::Approx(expected).epsilon(1e-13));
      }
}

TEST_CASE("at balance in every sequence 1, and more when only the batch as a whole is balanced") {
  support::routing_batch batch(8, 4);
  batch.set([](std::size_t, std::size_t) { return 0.0; }, [](std::size_t t, std::size_t e) { return (e + t) % 4 < 2; });
  const std::vector<hmoe::index_t> halves{0, 4, 8};
  set_sequences(batch, halves);
  CHECK(batch.evaluate(sequence_balance{}) == doctest::Approx(1).epsilon(1e-14));
  CHECK(batch.evaluate(sequence_balance{.normalization = balance_normalization::to_k}) ==
        doctest::Approx(2).epsilon(1e-14));

  // Each half prefers two experts of its own.
  const auto own = [](std::size_t t, std::size_t e) { return (t < 4) == (e < 2); };
  batch.set([&](std::size_t t, std::size_t e) { return own(t, e) ? 20.0 : 0.0; }, own);
  CHECK(batch.evaluate(sequence_balance{}) == doctest::Approx(2).epsilon(1e-6));
  set_sequences(batch, {});
  CHECK(batch.evaluate(sequence_balance{}) == doctest::Approx(1).epsilon(1e-6));
}

TEST_CASE("sequences must span the batch") {
  support::routing_batch batch(5, 3);
  for (const std::vector<hmoe::index_t>& wrong :
       {std::vector<hmoe::index_t>{0, 4}, {1, 5}, {0, 3, 2, 5}, {0, 6, 5}, {0}}) {
    set_sequences(batch, wrong);
    CHECK_THROWS_AS(batch.evaluate(sequence_balance{}), hmoe::error);
  }
}

TEST_CASE("no tokens give 0; a token with no score at all has no gradient") {
  support::routing_batch none(0, 3);
  CHECK(none.evaluate(sequence_balance{}) == 0);
  const std::vector<hmoe::index_t> empty{0, 0};
  set_sequences(none, empty);
  CHECK(none.evaluate(sequence_balance{}) == 0);

  support::routing_batch batch(2, 3);
  batch.set([](std::size_t, std::size_t) { return 0.0; }, [](std::size_t, std::size_t e) { return e == 1; });
  std::ranges::fill(batch.trace.probabilities().row(0), 0.0);
  CHECK(batch.evaluate(sequence_balance{1}) == doctest::Approx(0.5).epsilon(1e-14));
  for (const double slope : batch.trace.d_probabilities().row(0))
    CHECK(slope == 0);
}
