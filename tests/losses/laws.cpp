// SPDX-License-Identifier: MIT
// The laws on every loss, in every convention.
#include <hmoe/losses/adaptive_l1.hpp>
#include <hmoe/losses/compute_cost.hpp>
#include <hmoe/losses/global_load_balance.hpp>
#include <hmoe/losses/group_balance.hpp>
#include <hmoe/losses/importance.hpp>
#include <hmoe/losses/intra_group_balance.hpp>
#include <hmoe/losses/load_accumulator.hpp>
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/noisy_load.hpp>
#include <hmoe/losses/of_softmax.hpp>
#include <hmoe/losses/of_tokens.hpp>
#include <hmoe/losses/parameter_penalty.hpp>
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/losses/sequence_balance.hpp>
#include <hmoe/losses/smooth_load.hpp>
#include <hmoe/losses/sparsity_controller.hpp>
#include <hmoe/losses/z.hpp>
#include <hmoe/losses/zero_cost_balance.hpp>
#include <hmoe/testing/loss_laws.hpp>

#include "losses/own_loss.hpp"

#include <doctest/doctest.h>

#include <string_view>

namespace losses = hmoe::losses;

namespace {
void check(const auto& loss, const hmoe::testing::loss_options& options = {}) {
  CHECK(hmoe::testing::check_loss<double>(loss, options).text() == "");
  CHECK(hmoe::testing::check_loss<float>(loss, options).text() == "");
}

/// global_load_balance over the batch itself.
struct accumulated {
  double coefficient = 0.3;
  losses::balance_counts counts;
  losses::balance_normalization normalization;
  static constexpr std::string_view name = losses::global_load_balance::name;

  template <class T> double evaluate(hmoe::routed_batch<T>& batch) const {
    losses::load_accumulator load(batch.trace.expert_count(), counts);
    load.add(batch);
    return losses::global_load_balance{coefficient, &load, normalization}.evaluate(batch);
  }
};
} // namespace

TEST_CASE("load balance") {
  using losses::balance_counts, losses::balance_normalization;
  for (const auto counts : {balance_counts::all_choices, balance_counts::first_choice})
    for (const auto normalization : {balance_normalization::to_k, balance_normalization::to_one}) {
      check(losses::load_balance{0.3, counts, normalization});
      check(accumulated{0.3, counts, normalization});
      check(losses::sequence_balance{0.3, counts, normalization});
      check(losses::sequence_balance{0.3, counts, normalization, false});
    }
}

TEST_CASE("losses that know widths and groups") {
  check(losses::parameter_penalty{0.3});
  check(losses::parameter_penalty{0.3, losses::width_unit::raw});
  check(losses::parameter_penalty{0.3, losses::width_unit::max});
  check(losses::compute_cost{0.3});
  check(losses::compute_cost{0.3, {1, 4, 2, 0, 8}}, {.treats_experts_alike = false});
  check(losses::zero_cost_balance{0.3});
  check(losses::zero_cost_balance{0.3, 0.75, {1, 0.5, 1, 0.5, 2}}, {.treats_experts_alike = false});
  check(losses::group_balance{0.3});
  check(losses::group_balance{0.3, {2, 1, 2}});
  for (const auto gates :
       {losses::gate_values::probabilities, losses::gate_values::selected, losses::gate_values::renormalized}) {
    check(losses::intra_group_balance{0.3, {}, gates});
    check(losses::intra_group_balance{0.3, {2, 1, 2}, gates});
  }
}

TEST_CASE("losses of gates and logits") {
  for (const auto gates :
       {losses::gate_values::probabilities, losses::gate_values::selected, losses::gate_values::renormalized})
    check(losses::importance{0.3, gates});
  check(losses::smooth_load{0.3});
  check(losses::smooth_load{0.3, 1.5});
  check(losses::noisy_load{0.3, 0.1}, {.learned_noise = true});
  check(losses::router_entropy{0.3});
  check(losses::z{0.3});
  check(losses::of_tokens<support::margin>{0.3});
  check(losses::of_softmax{losses::load_balance{0.3}}, {.has_probabilities = false});
  check(losses::of_softmax{losses::z{0.3}}, {.has_probabilities = false}); // reads logits only
  check(losses::adaptive_l1{0.3, 2});
  check(losses::adaptive_l1{0.3, 2, false});
  check(losses::sparsity_controller(5, 2, 0.3).loss());
}
