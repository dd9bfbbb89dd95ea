// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/parallel/expert_parallel.hpp>
#include <hmoe/parallel/gradients.hpp>
#include <hmoe/parallel/placement.hpp>
#include <hmoe/parallel/threads.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/training/adamw.hpp>

#include "support/random_matrix.hpp"

#include <cstddef>
#include <map>
#include <memory_resource>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Layers on ranks with their optimisers, to be saved, loaded and moved.
namespace support {

using shard_rank = hmoe::communicators::threads::member;
using shard_bank = hmoe::experts::glu_bank<double, hmoe::experts::silu>;
using shard_values = std::map<std::string, std::vector<double>>;
inline constexpr std::size_t shard_d = 8, shard_tokens = 12;
inline const std::vector<std::size_t> shard_widths{4, 12, 2, 16, 6}; // NOLINT: may throw, then there is no test

/// Experts 1 and 3 on two ranks where there are several.
inline hmoe::expert_placement shard_placement(std::size_t ranks) {
  std::vector<std::vector<hmoe::replica>> of;
  for (std::size_t e = 0; e < shard_widths.size(); ++e)
    of.push_back({{(2 * e + 1) % ranks, 1.0}});
  if (ranks >= 2) {
    of[1] = {{0, 0.5}, {ranks - 1, 0.5}};
    of[3] = {{0, 0.25}, {1, 0.75}};
  }
  return {ranks, of};
}

/// A layer on a rank with an optimiser, whole or with its own experts only.
template <class Communicator> struct shard_layer {
  explicit shard_layer(const Communicator& ranks, bool own_only = true,
                       std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : shard_layer(ranks, shard_placement(ranks.size()), own_only, memory) {}
  shard_layer(const Communicator& ranks, hmoe::expert_placement where, bool own_only,
              std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : placed(std::move(where)),
        layer(hmoe::expert_set{shard_bank(
                  shard_d, own_only ? hmoe::placement::own_widths(placed, ranks.rank(), shard_widths) : shard_widths,
                  hmoe::experts::biases::all, {}, memory)},
              hmoe::routing::top_k_router<double>(shard_d, shard_widths.size(), 2),
              hmoe::dispatch::expert_parallel<Communicator>{ranks, placed}),
        gradients(layer.make_gradients()) {
    layer.append_parameters(gradients, list, "l.");
    optimizer.emplace(hmoe::training::adamw_options{}, list);
  }
  /// Some steps with dy = y; returns the last y.
  std::vector<double> train(const Communicator& ranks, std::size_t steps) {
    support::random_source random(80 + ranks.rank());
    const auto x = support::random_matrix<double>(random, shard_tokens, shard_d, 2);
    hmoe::matrix<double> y(shard_tokens, shard_d), dx(shard_tokens, shard_d);
    const hmoe::context ctx{hmoe::backends::reference{}};
    auto tape = layer.make_tape(shard_tokens);
    for (std::size_t s = 0; s < steps; ++s) {
      gradients.set_zero();
      layer.forward(ctx, x, y, tape);
      layer.backward(ctx, tape, y, dx, gradients);
      hmoe::training::sum_gradients(ranks, placed, gradients);
      optimizer->step(list, 0.05);
    }
    return {y.data(), y.data() + y.size()};
  }
  /// All that this rank works with: weights and state by name.
  shard_values values(std::size_t rank) {
    shard_values result;
    for (std::size_t i = 0; i < list.size(); ++i) {
      const auto& p = list[i];
      if (p.value.empty() || (p.expert != hmoe::parameter_info::no_expert && !placed.has(rank, p.expert)))
        continue;
      result[p.name].assign(p.value.begin(), p.value.end());
      optimizer->visit_state(i, [&](std::string_view state, std::span<double> of) {
        result[std::string(state) + p.name].assign(of.begin(), of.end());
      });
    }
    return result;
  }

  hmoe::expert_placement placed;
  hmoe::moe_layer<hmoe::expert_set<shard_bank>, hmoe::routing::top_k_router<double>,
                  hmoe::dispatch::expert_parallel<Communicator>>
      layer;
  decltype(layer.make_gradients()) gradients;
  std::vector<hmoe::parameter<double>> list;
  std::optional<hmoe::training::adamw<double>> optimizer;
};

} // namespace support
