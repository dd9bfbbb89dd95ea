// SPDX-License-Identifier: MIT
#include <hmoe/core/description.hpp>
#include <hmoe/dispatch/blocked.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/gating.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/routing/batch_selections/expert_choice.hpp>
#include <hmoe/routing/batch_selections/hash_table.hpp>
#include <hmoe/routing/batch_selections/random_hash.hpp>
#include <hmoe/routing/batch_selections/sinkhorn.hpp>
#include <hmoe/routing/scores/cosine.hpp>
#include <hmoe/routing/scores/grouped.hpp>
#include <hmoe/routing/scores/gumbel.hpp>
#include <hmoe/routing/scores/jittered.hpp>
#include <hmoe/routing/scores/linear.hpp>
#include <hmoe/routing/scores/noisy.hpp>
#include <hmoe/routing/scores/own_input.hpp>
#include <hmoe/routing/scores/rms_normalized.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/selections/cost_aware_top_p.hpp>
#include <hmoe/routing/selections/cumulative_threshold.hpp>
#include <hmoe/routing/selections/group_limited.hpp>
#include <hmoe/routing/selections/threshold.hpp>
#include <hmoe/routing/selections/top_k.hpp>
#include <hmoe/routing/selections/top_p.hpp>
#include <hmoe/routing/selections/two_level.hpp>
#include <hmoe/routing/shared/always_on.hpp>
#include <hmoe/routing/weightings/normalized.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>
#include <hmoe/routing/weightings/renormalized_without_last.hpp>
#include <hmoe/routing/weightings/scaled.hpp>
#include <hmoe/routing/weightings/score_of_logit.hpp>
#include <hmoe/routing/weightings/sparsemixer.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

TEST_CASE("what a policy chooses or weighs by is in its text") {
  namespace routing = hmoe::routing;
  const auto ends = [](const std::string& text, const std::string& words) {
    CAPTURE(text);
    CHECK(text.ends_with(words));
  };
  const auto of = [](const auto& policy) { return hmoe::descriptions::describe(policy); };
  ends(of(routing::random_hash{.k = 2, .key = {(std::uint64_t{1} << 60U) + 1}}), " k = 2 key = 1152921504606846977");
  ends(of(routing::renormalized{.epsilon = 0.5, .use = routing::epsilon_use::clamped}), " epsilon = 0.5 use = 1");
  ends(of(routing::normalized<>{.use = routing::epsilon_use::clamped}), " order = 1 epsilon = 0 use = 1");
  using linear = routing::linear<float>;
  ends(of(routing::gumbel<linear>(2, 3, 0.25)), " scale = 0.25");
  ends(of(routing::grouped<linear>(linear(2, 5), {2, 3})), " groups of 2 3");
  const std::array<std::size_t, 3> sizes{2, 4, 1};
  ends(of(routing::two_level({sizes.data(), sizes.size()}, 2, 1)),
       " groups of 2 4 1; groups_per_token = 2 experts_per_group = 1");
  const auto table = [&](hmoe::index_t last) { return of(routing::hash_table({0, 1, 2, last}, 2)); };
  CHECK(table(3).find(" k = 2 vocabulary = 2 checksum = ") != std::string::npos);
  CHECK(table(3) == table(3));
  CHECK(table(3) != table(1));
}

namespace {
/// A score function with a number.
struct tempered {
  double temperature;
  template <class Visitor> void visit_numbers(Visitor&& visit) const { visit("temperature", temperature); }
  template <class T> void forward(hmoe::vector_view<const T> z, hmoe::vector_view<T> p) const {
    for (std::size_t i = 0; i < z.size(); ++i)
      p[i] = z[i] / static_cast<T>(temperature);
  }
  template <class T>
  void backward(hmoe::vector_view<const T>, hmoe::vector_view<const T>, hmoe::vector_view<const T> d_p,
                hmoe::vector_view<T> d_z) const {
    for (std::size_t i = 0; i < d_z.size(); ++i)
      d_z[i] += d_p[i] / static_cast<T>(temperature);
  }
};
} // namespace

TEST_CASE("policies of one type that compute differently have different texts, whichever number differs") {
  namespace routing = hmoe::routing;
  namespace kinds = hmoe::experts;
  using linear = routing::linear<float>;
  using use = routing::epsilon_use;
  const auto differ = [](auto first, auto... others) {
    const std::string text = hmoe::descriptions::describe(first);
    CAPTURE(text);
    CHECK(text == hmoe::descriptions::describe(decltype(first)(first)));
    for (const std::string& other : {hmoe::descriptions::describe(others)...})
      CHECK(other != text);
  };
  differ(routing::top_k<>{2}, routing::top_k<>{3});
  differ(routing::top_p{0.5}, routing::top_p{0.6});
  differ(routing::threshold{0.5}, routing::threshold{0.6});
  using limit = routing::cumulative_threshold;
  differ(limit{0.5, 3}, limit{0.6, 3}, limit{0.5, 2}, limit{0.5});
  using groups = routing::group_limited<>;
  differ(groups{8, 4, 2}, groups{4, 4, 2}, groups{8, 3, 2}, groups{8, 4, 1});
  using by_cost = routing::cost_aware_top_p;
  differ(by_cost({1, 2}, 0.5, 3), by_cost({1, 3}, 0.5, 3), by_cost({1, 2}, 0.6, 3), by_cost({1, 2}, 0.5, 2));
  differ(routing::biased<float, routing::top_k<>>(4, routing::top_k<>{2}),
         routing::biased<float, routing::top_k<>>(4, routing::top_k<>{3}));
  differ(routing::expert_choice{1}, routing::expert_choice{2});
  using transport = routing::sinkhorn;
  differ(transport{1, 9, 0.1}, transport{2, 9, 0.1}, transport{1, 8, 0.1}, transport{1, 9, 0.2});
  differ(routing::random_hash{1, {5}}, routing::random_hash{2, {5}}, routing::random_hash{1, {6}});
  differ(routing::renormalized{0.1, use::added}, routing::renormalized{0.2, use::added},
         routing::renormalized{0.1, use::clamped});
  differ(routing::renormalized_without_last{0.1}, routing::renormalized_without_last{0.2});
  using norm = routing::normalized<>;
  differ(norm{1, 0.1, use::added}, norm{2, 0.1, use::added}, norm{1, 0.2, use::added}, norm{1, 0.1, use::clamped});
  using scaled = routing::scaled<routing::renormalized>;
  differ(scaled{2, {0.1}}, scaled{3, {0.1}}, scaled{2, {0.2}});
  differ(routing::sparsemixer{0.1}, routing::sparsemixer{0.2});
  differ(routing::score_of_logit<tempered>{{1}}, routing::score_of_logit<tempered>{{2}});
  differ(routing::gumbel<linear>(2, 3, 0.25), routing::gumbel<linear>(2, 3, 0.5));
  differ(routing::jittered<linear>(2, 3, 0.25), routing::jittered<linear>(2, 3, 0.5));
  differ(routing::noisy<linear>(2, 3, 0.25), routing::noisy<linear>(2, 3, 0.5));
  differ(routing::rms_normalized<linear>(2, 3, 0.25), routing::rms_normalized<linear>(2, 3, 0.5));
  using cosine = routing::cosine<float>;
  differ(cosine(2, 3, {.temperature = 0.1}), cosine(2, 3, {.temperature = 0.2}));
  using own = routing::linear<float, tempered>;
  differ(own(2, 3, tempered{1}), own(2, 3, tempered{2}));
  differ(routing::own_input<own>(own(2, 3, tempered{1})), routing::own_input<own>(own(2, 3, tempered{2})));
  differ(routing::always_on{1}, routing::always_on{2});
  differ(kinds::clamped<kinds::silu>{7}, kinds::clamped<kinds::silu>{8});
  differ(kinds::gpt_oss_gate{7, 1}, kinds::gpt_oss_gate{8, 1}, kinds::gpt_oss_gate{7, 2});
  differ(hmoe::dispatch::blocked<>{8}, hmoe::dispatch::blocked<>{16});
}

TEST_CASE("neighbours of one kind come once in the text of experts, whatever their widths are") {
  namespace kinds = hmoe::experts;
  const auto text = [](const std::vector<std::size_t>& widths) {
    return hmoe::descriptions::describe_experts(hmoe::expert_set{
        hmoe::expert_ids{{{0, 1, 3}, {2}}},
        kinds::glu_bank<float, kinds::clamped<kinds::silu>>(4, widths, kinds::biases::none, {.limit = 7}),
        kinds::mlp_bank<float, kinds::relu>(4, {2}, kinds::biases::all)});
  };
  CHECK(text({1, 2, 3}).ends_with(" d_model = 4 experts = 4; gate limit = 7; 0 to 1: bank 0 gate up down; "
                                  "2: bank 1 up down up_bias down_bias; 3: bank 0 gate up down"));
  CHECK(text({0, 0, 3}) == text({1, 2, 3}));
}
