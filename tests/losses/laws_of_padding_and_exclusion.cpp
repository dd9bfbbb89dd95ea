// SPDX-License-Identifier: MIT
// Padding tokens and experts out of service count in no loss: values and gradients are those of the batch without them.
#include <hmoe/losses/adaptive_l1.hpp>
#include <hmoe/losses/compute_cost.hpp>
#include <hmoe/losses/global_load_balance.hpp>
#include <hmoe/losses/group_balance.hpp>
#include <hmoe/losses/importance.hpp>
#include <hmoe/losses/intra_group_balance.hpp>
#include <hmoe/losses/load_accumulator.hpp>
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/noisy_load.hpp>
#include <hmoe/losses/parameter_penalty.hpp>
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/losses/sequence_balance.hpp>
#include <hmoe/losses/smooth_load.hpp>
#include <hmoe/losses/sparsity_controller.hpp>
#include <hmoe/losses/z.hpp>
#include <hmoe/losses/zero_cost_balance.hpp>

#include "losses/routing_batch.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace losses = hmoe::losses;
using hmoe::index_t;

namespace {
using indices = std::vector<std::size_t>;

/// A random batch, and one with the same tokens and experts, with padding between them and an expert out of service.
struct twins {
  const indices token_of{1, 2, 4, 5, 6, 9, 10}, expert_of{0, 1, 3, 4, 5}; ///< where they are in `masked`
  const std::vector<std::uint8_t> valid{0, 1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 0};
  const std::vector<index_t> plain_sequences{0, 2, 2, 7}, masked_sequences{0, 3, 4, 12}; ///< the second has no token
  support::routing_batch plain{7, 5}, masked{12, 6};

  explicit twins(std::uint64_t seed) {
    support::random_source random(seed);
    plain.trace.resize(7, 5, 10, true);
    masked.trace.resize(12, 6, 12, true);
    plain.trace.set_inputs({.noise = hmoe::noise_source{}, .sequence_offsets = plain_sequences});
    masked.trace.set_inputs({.noise = hmoe::noise_source{}, .sequence_offsets = masked_sequences, .valid = valid});
    plain.randomize(random);
    plain.widths = {8, 8, 3, 3, 12};
    masked.widths = {8, 8, 100, 3, 3, 12};
    const auto found = [](const indices& list, std::size_t i) {
      return static_cast<std::size_t>(std::ranges::find(list, i) - list.begin());
    };
    masked.set(
        [&](std::size_t t, std::size_t e) {
          if (valid[t] == 0)
            return 0.0;
          return e == 2 ? -std::numeric_limits<double>::infinity()
                        : plain.trace.logits()(found(token_of, t), found(expert_of, e));
        },
        [&](std::size_t t, std::size_t e) {
          if (valid[t] == 0 || e == 2)
            return false;
          const auto ids = std::as_const(plain).assigned.experts_of(found(token_of, t));
          return std::ranges::find(ids, found(expert_of, e)) != ids.end();
        });
    for (std::size_t t = 0; t < 12; ++t)
      if (valid[t] == 0)
        std::ranges::fill(masked.trace.probabilities().row(t), 0.0);
    std::fill_n(masked.trace.score_saved().data(), masked.trace.score_saved().size(), 0.0);
    for (std::size_t t = 0; t < 7; ++t)
      for (std::size_t e = 0; e < 5; ++e)
        for (const std::size_t block : {0U, 1U}) // spreads, then noise
          masked.trace.score_saved()(token_of[t], 6 * block + expert_of[e]) =
              plain.trace.score_saved()(t, 5 * block + e) = random.real(-1, 1);
  }

  void check(const auto& loss) {
    CAPTURE(std::string(loss.name));
    for (support::routing_batch* batch : {&plain, &masked})
      batch->trace.clear_gradients();
    CHECK(masked.evaluate(loss) == doctest::Approx(plain.evaluate(loss)).epsilon(1e-12));
    compare(plain.trace.d_logits(), masked.trace.d_logits(), 1);
    compare(plain.trace.d_probabilities(), masked.trace.d_probabilities(), 1);
    compare(plain.trace.d_score_saved(), masked.trace.d_score_saved(), 2);
  }

private:
  /// `masked` has the values of `plain`, and zeros for padding; what an expert out of service has is read by nobody.
  void compare(hmoe::matrix_view<const double> few, hmoe::matrix_view<const double> many, std::size_t blocks) const {
    std::vector<std::vector<double>> expected(12, std::vector<double>(6 * blocks));
    for (std::size_t t = 0; t < 7; ++t)
      for (std::size_t e = 0; e < 5; ++e)
        for (std::size_t block = 0; block < blocks; ++block)
          expected[token_of[t]][6 * block + expert_of[e]] = few(t, 5 * block + e);
    for (std::size_t t = 0; t < 12; ++t)
      for (std::size_t i = 0; i < 6 * blocks; ++i)
        CHECK((i % 6 == 2 || many(t, i) == doctest::Approx(expected[t][i]).epsilon(1e-10)));
  }
};

void check_all(twins& batches) {
  using losses::balance_counts, losses::balance_normalization, losses::gate_values, losses::width_unit;
  for (const auto counts : {balance_counts::all_choices, balance_counts::first_choice})
    for (const auto normalization : {balance_normalization::to_k, balance_normalization::to_one}) {
      batches.check(losses::load_balance{0.3, counts, normalization});
      batches.check(losses::sequence_balance{0.3, counts, normalization});
      batches.check(losses::sequence_balance{0.3, counts, normalization, false});
    }
  for (const auto unit : {width_unit::mean, width_unit::raw, width_unit::max})
    batches.check(losses::parameter_penalty{0.3, unit});
  for (const auto gates : {gate_values::probabilities, gate_values::selected, gate_values::renormalized}) {
    batches.check(losses::importance{0.3, gates});
    batches.check(losses::intra_group_balance{0.3, {}, gates});
  }
  batches.check(losses::compute_cost{0.3});
  batches.check(losses::zero_cost_balance{0.3});
  batches.check(losses::smooth_load{0.3});
  batches.check(losses::noisy_load{0.3, 0.1});
  batches.check(losses::router_entropy{0.3});
  batches.check(losses::z{0.3});
  batches.check(losses::adaptive_l1{0.3, 2});
  batches.check(losses::adaptive_l1{0.3, 2, false});
}
} // namespace

TEST_CASE("losses of a batch with padding and an expert out of service are those of the batch without") {
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    twins batches(seed);
    check_all(batches);
  }
}

TEST_CASE("a group whose only expert is out of service is no group") {
  twins batches(4); // expert 2 of the masked batch has a width of its own
  batches.masked.widths[2] = 2;
  batches.check(losses::group_balance{0.3});
  batches.check(losses::group_balance{0.3, {}, 2});
}

TEST_CASE("counts over batches leave both out") {
  twins batches(5);
  losses::load_accumulator few(5), many(6);
  const hmoe::routed_batch<double> plain{batches.plain.trace, batches.plain.assigned, batches.plain.widths},
      masked{batches.masked.trace, batches.masked.assigned, batches.masked.widths};
  few.add(plain);
  many.add(masked);
  CHECK(many.tokens() == 7);
  for (std::size_t e = 0; e < 5; ++e)
    CHECK(many.counts()[batches.expert_of[e]] == few.counts()[e]);
  losses::sparsity_controller of_few(5, 2), of_many(5, 2);
  of_few.add(std::as_const(batches.plain).trace);
  of_many.add(std::as_const(batches.masked).trace);
  CHECK(of_many.sparsity() == of_few.sparsity());
  hmoe::routed_batch<double> routed = {batches.masked.trace, batches.masked.assigned, batches.masked.widths};
  CHECK(losses::global_load_balance{1, &many}.evaluate(routed) ==
        doctest::Approx(batches.plain.evaluate(losses::global_load_balance{1, &few})).epsilon(1e-12));
}

TEST_CASE("a batch of padding alone is worth 0") {
  support::routing_batch batch(3, 4);
  const std::vector<std::uint8_t> none(3);
  batch.trace.resize(3, 4, 8, true);
  std::fill_n(batch.trace.probabilities().data(), 12, 0.0);
  std::fill_n(batch.trace.score_saved().data(), 24, 0.0);
  batch.trace.set_inputs({.noise = hmoe::noise_source{}, .valid = none});
  const auto check = [&](const auto& loss) {
    CAPTURE(std::string(loss.name));
    CHECK(batch.evaluate(loss) == 0);
    for (const double g : batch.trace.d_probabilities().row(1))
      CHECK(g == 0);
  };
  check(losses::load_balance{});
  check(losses::sequence_balance{});
  check(losses::parameter_penalty{});
  check(losses::compute_cost{});
  check(losses::zero_cost_balance{});
  check(losses::importance{});
  check(losses::smooth_load{});
  check(losses::noisy_load{});
  check(losses::group_balance{});
  check(losses::intra_group_balance{});
  check(losses::router_entropy{});
  check(losses::z{});
  check(losses::adaptive_l1{});
}
