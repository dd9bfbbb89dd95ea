// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/hmoe.hpp>

#include "adaptation.hpp"
#include "feed_forwards.hpp"
#include "layer_router.hpp"
#include "shared_experts.hpp"

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

// The routers by their names, with the policies they are made of. In several tables, because the passes of each router
// are compiled: *_routers.cpp do it for float.
namespace language_model {

/// A layer with this router and what moves it between steps. Defined in moe_feed_forward.hpp.
template <class T>
std::unique_ptr<feed_forward<T>> make_moe_feed_forward(const layer_setup& s, const layer_router<T>& router,
                                                       std::unique_ptr<adaptation<T>> rule);

/// The values of a variant's router, by place.
class router_values {
public:
  explicit router_values(const layer_setup& s) : choice_(s.what.router) {}

  double number(std::size_t i, double otherwise = 0.0) const {
    return i < choice_.values.size() ? choice_.values[i] : otherwise;
  }
  std::size_t count(std::size_t i, std::size_t otherwise = 0) const {
    const double value = number(i, static_cast<double>(otherwise));
    hmoe::require(value >= 0 && value <= 1e6 && value == std::floor(value), "router=", choice_.kind, ": value ", i + 1,
                  " should be a whole number, not ", value);
    return static_cast<std::size_t>(value);
  }

private:
  const router_choice& choice_;
};

template <class Score, class Selection, class Weighting = hmoe::routing::renormalized, class Rule = no_adaptation>
std::unique_ptr<feed_forward<typename Score::value_type>>
make_layer(const layer_setup& s, Score score, Selection select, Weighting weight = {}, Rule rule = {}) {
  using T = typename Score::value_type;
  using router = hmoe::routing::router<Score, Selection, Weighting, shared_experts<T>>;
  return make_moe_feed_forward<T>(
      s, router(std::move(score), std::move(select), weight, shared_experts<T>(s.what, s.d_model)),
      std::make_unique<adaptation_by<router, Rule>>(std::move(rule)));
}

/// Score<T>(d_model, experts, more…)
template <class Score, class... More> Score make_score(const layer_setup& s, More... more) {
  return Score(s.d_model, s.what.widths.size(), more...);
}

/// The first value as a number of groups, as equal as they can be.
inline std::vector<std::size_t> group_sizes(const layer_setup& s) {
  const std::size_t groups = router_values(s).count(0), experts = s.what.widths.size();
  hmoe::require(groups >= 1 && groups <= experts, "router=", s.what.router.kind, ": ", groups, " groups of ", experts,
                " experts; each needs at least one");
  std::vector<std::size_t> sizes;
  for (std::size_t g = 0; g < groups; ++g)
    sizes.push_back((g + 1) * experts / groups - g * experts / groups);
  return sizes;
}

template <class T> std::vector<router_entry<T>> selection_routers() {
  using namespace hmoe::routing;
  using setup = const layer_setup&;
  using values = router_values;
  return {
      {"top-k", [](setup s) { return make_layer(s, make_score<linear<T>>(s), top_k<>(values(s).count(0))); }},
      {"top-p", [](setup s) { return make_layer(s, make_score<linear<T>>(s), top_p(values(s).number(0))); }},
      {"threshold", [](setup s) { return make_layer(s, make_score<linear<T>>(s), threshold(values(s).number(0))); }},
      {"cumulative-threshold",
       [](setup s) {
         const values v(s);
         return make_layer(s, make_score<linear<T>>(s), cumulative_threshold(v.number(0), v.count(1, 1'000'000)));
       }},
      {"group-limited",
       [](setup s) {
         const values v(s);
         return make_layer(s, make_score<linear<T>>(s),
                           group_limited<group_score::best>{v.count(0), v.count(1), v.count(2)});
       }},
      {"two-level",
       [](setup s) {
         const values v(s);
         return make_layer(s, make_score<linear<T>>(s), two_level(group_sizes(s), v.count(1), v.count(2)));
       }},
      {"mohge",
       [](setup s) {
         const values v(s);
         const auto sizes = group_sizes(s);
         return make_layer(s, grouped(make_score<linear<T>>(s), sizes), two_level(sizes, v.count(1), v.count(2)));
       }},
      {"cost-aware-top-p",
       [](setup s) {
         const values v(s);
         const double unbounded = std::numeric_limits<double>::infinity();
         return make_layer(
             s, make_score<linear<T>>(s),
             cost_aware_top_p({s.what.widths.begin(), s.what.widths.end()}, v.number(0), v.number(1, unbounded)));
       }},
  };
}

template <class T> std::vector<router_entry<T>> score_routers() {
  using namespace hmoe::routing;
  using setup = const layer_setup&;
  using values = router_values;
  return {
      {"raw-top-k",
       [](setup s) { return make_layer(s, make_score<linear<T>>(s), top_k<>(values(s).count(0)), raw{}); }},
      {"raw-top-p", [](setup s) { return make_layer(s, make_score<linear<T>>(s), top_p(values(s).number(0)), raw{}); }},
      {"deepseek-v2",
       [](setup s) {
         const values v(s);
         return make_layer(s, make_score<linear<T>>(s),
                           group_limited<group_score::best, group_mask::zero>{v.count(0), v.count(1), v.count(2)},
                           scaled<raw>{v.number(3, 1.0)});
       }},
      {"gpt-oss",
       [](setup s) {
         return make_layer(s, make_score<linear<T, unscored, true>>(s), top_k<>(values(s).count(0)),
                           softmax_over_selected{});
       }},
      {"llama4",
       [](setup s) {
         return make_layer(s, make_score<linear<T, unscored>>(s), top_k<>(values(s).count(0, 1)),
                           on_input_side<sigmoid_of_logit>{});
       }},
      {"sigmoid-top-k",
       [](setup s) {
         const values v(s);
         return make_layer(s, make_score<linear<T, sigmoid>>(s), top_k<>(v.count(0)),
                           scaled<renormalized>{v.number(1, 1.0), {1e-20}});
       }},
      {"sqrt-softplus-top-k",
       [](setup s) {
         const values v(s);
         return make_layer(s, make_score<linear<T, sqrt_softplus>>(s), top_k<>(v.count(0)),
                           scaled<renormalized>{v.number(1, 1.0), {1e-20}});
       }},
      {"relu", [](setup s) { return make_layer(s, make_score<linear<T, relu>>(s), positive{}, raw{}); }},
      {"cosine-top-k",
       [](setup s) {
         const values v(s);
         const typename cosine<T>::options choice{.temperature = v.number(1, 0.07)};
         return make_layer(s, make_score<cosine<T>>(s, choice), top_k<>(v.count(0)));
       }},
      {"gate-residual",
       [](setup s) {
         const top_k<> select(values(s).count(0));
         if (s.index == 0) // has no previous layer, and so no use for the weight
           return make_layer(s, make_score<linear<T>>(s), select);
         return make_layer(s, make_score<gate_residual<linear<T>>>(s), select);
       }},
  };
}

template <class T> std::vector<router_entry<T>> noise_routers() {
  using namespace hmoe::routing;
  using setup = const layer_setup&;
  using values = router_values;
  return {
      {"switch",
       [](setup s) {
         return make_layer(s, make_score<jittered<linear<T>>>(s, values(s).number(0, 1e-2)), top_k<1>{}, raw{});
       }},
      {"noisy-top-k",
       [](setup s) { return make_layer(s, make_score<noisy<linear<T>>>(s), top_k<>(values(s).count(0))); }},
      {"gumbel-top-k",
       [](setup s) {
         const values v(s);
         return make_layer(s, make_score<gumbel<linear<T>>>(s, v.number(1, 1.0)), top_k<>(v.count(0)));
       }},
      {"jittered-top-k",
       [](setup s) {
         const values v(s);
         return make_layer(s, make_score<jittered<linear<T>>>(s, v.number(1, 1e-2)), top_k<>(v.count(0)));
       }},
  };
}

template <class T>
std::unique_ptr<feed_forward<T>> make_biased_layer(const layer_setup& s, bool proportional, bool in_flops) {
  using namespace hmoe::routing;
  const router_values v(s);
  return make_layer(s, make_score<linear<T>>(s), biased<T, top_k<>>(s.what.widths.size(), v.count(0)), renormalized{},
                    bias_adaptation{v.number(1, 1e-3), proportional, in_flops});
}

template <class T> std::vector<router_entry<T>> moving_routers() {
  using namespace hmoe::routing;
  using setup = const layer_setup&;
  using values = router_values;
  return {
      {"controlled-top-p",
       [](setup s) {
         const values v(s);
         const top_p_controller controller({.target = v.number(0), .start = v.number(1, 0.6)});
         return make_layer(s, make_score<linear<T>>(s), top_p(controller.p()), renormalized{},
                           top_p_adaptation{controller});
       }},
      {"sign-bias", [](setup s) { return make_biased_layer<T>(s, false, false); }},
      {"sign-bias-flops", [](setup s) { return make_biased_layer<T>(s, false, true); }},
      {"proportional-bias", [](setup s) { return make_biased_layer<T>(s, true, false); }},
      {"proportional-bias-flops", [](setup s) { return make_biased_layer<T>(s, true, true); }},
      {"longcat-flash",
       [](setup s) {
         const values v(s);
         return make_layer(s, make_score<linear<T>>(s), biased<T, top_k<>>(s.what.widths.size(), v.count(0)),
                           scaled<raw>{v.number(1, 1.0)}, bias_adaptation{v.number(2, 1e-3), true, false});
       }},
      {"deepseek-v3",
       [](setup s) {
         const values v(s);
         return make_layer(s, make_score<linear<T, sigmoid>>(s),
                           biased<T, group_limited<>>(s.what.widths.size(), {v.count(0), v.count(1), v.count(2)}),
                           scaled<renormalized>{v.number(3, 1.0), {1e-20}}, bias_adaptation{.rate = v.number(4, 1e-3)});
       }},
  };
}

template <class T> std::vector<router_entry<T>> batch_routers() {
  using namespace hmoe::routing;
  using setup = const layer_setup&;
  using values = router_values;
  return {
      {"hash",
       [](setup s) {
         return make_layer(s, make_score<no_score<T>>(s), random_hash{values(s).count(0)}, equal_weights{});
       }},
      {"hash-table",
       [](setup s) {
         // Tokenisers number their pieces from the most frequent on, so dealing out ids in turn shares out the text.
         const std::size_t k = values(s).count(0), experts = s.what.widths.size();
         hmoe::require(k >= 1 && k <= experts, "k is ", k, " of ", experts, " experts");
         std::vector<hmoe::index_t> table;
         for (std::size_t i = 0; i < s.vocabulary * k; ++i)
           table.push_back(static_cast<hmoe::index_t>(i % experts));
         return make_layer(s, make_score<no_score<T>>(s), hash_table(std::move(table), k), equal_weights{});
       }},
      {"expert-choice",
       [](setup s) { return make_layer(s, make_score<linear<T>>(s), expert_choice{values(s).number(0)}, raw{}); }},
      {"sinkhorn",
       [](setup s) { return make_layer(s, make_score<linear<T>>(s), sinkhorn{values(s).count(0)}, raw{}); }},
      {"balanced", [](setup s) { return make_layer(s, make_score<linear<T>>(s), balanced{}, sigmoid_of_logit{}); }},
  };
}

} // namespace language_model
