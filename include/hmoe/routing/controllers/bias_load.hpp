// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/vector_view.hpp>

#include <cmath>
#include <cstddef>

/// The load that a selection bias follows. It is what each expert was given since the last update (over all devices and
/// micro-batches: add them up first), in tokens or, for experts of unequal width, in FLOPs:
///   routing::load_in_flops(tape.trace().tokens_per_expert(), flops_per_token, load);
///   routing::update_bias_by_sign<float>(router.selection_policy().bias(), load, 1e-3);
namespace hmoe::routing {

/// load_i += tokens that expert i was given.
inline void load_in_tokens(vector_view<const index_t> tokens_per_expert, vector_view<double> load) {
  require(load.size() == tokens_per_expert.size(), "a load of ", load.size(), " experts for counts of ",
          tokens_per_expert.size());
  for (std::size_t i = 0; i < load.size(); ++i)
    load[i] += tokens_per_expert[i];
}

/// load_i += tokens that expert i was given × what it computes for a token (layer_cost::experts: flops_per_token).
inline void load_in_flops(vector_view<const index_t> tokens_per_expert, vector_view<const double> flops_per_token,
                          vector_view<double> load) {
  require(load.size() == tokens_per_expert.size() && flops_per_token.size() == load.size(), "a load of ", load.size(),
          " experts for counts of ", tokens_per_expert.size(), " and costs of ", flops_per_token.size());
  for (std::size_t i = 0; i < load.size(); ++i)
    load[i] += tokens_per_expert[i] * flops_per_token[i];
}

namespace detail {
/// How many of the first experts have a bias that moves, checked.
template <class T>
[[nodiscard]] std::size_t moving_experts(vector_view<T> bias, vector_view<const double> load, double rate,
                                         std::size_t moving) {
  require(std::isfinite(rate), "a selection bias cannot move at a rate of ", rate, ": it must be finite");
  require(load.size() == bias.size(), "a load of ", load.size(), " experts for a bias of ", bias.size());
  require(moving == static_cast<std::size_t>(-1) || moving <= bias.size(), "the bias of ", moving, " of ", bias.size(),
          " experts should move");
  for (std::size_t i = 0; i < load.size(); ++i)
    require(std::isfinite(load[i]), "the load of expert ", i, " is ", load[i], ": it must be finite");
  return moving < bias.size() ? moving : bias.size();
}
} // namespace detail

inline constexpr std::size_t all_experts = static_cast<std::size_t>(-1);

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
