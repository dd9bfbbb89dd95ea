// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <memory_resource>
#include <utility>
#include <vector>

/// Passes over batches of one load, and what they take of the workspace.
namespace announced {

/// k neighbouring experts for each token, the first token's from `first` on, the next one's `step` further.
struct neighbours {
  std::size_t first = 0, step = 0, k = 1;
  [[nodiscard]] std::size_t max_selected(std::size_t) const { return k; }
  template <class T>
  void operator()(const hmoe::router_trace<T>& trace, hmoe::matrix_view<hmoe::index_t> chosen,
                  hmoe::vector_view<hmoe::index_t> counts, std::pmr::memory_resource*) const {
    for (std::size_t t = 0; t < trace.tokens(); ++t) {
      counts[t] = static_cast<hmoe::index_t>(k);
      for (std::size_t i = 0; i < k; ++i)
        chosen(t, i) = static_cast<hmoe::index_t>((first + t * step + i) % trace.expert_count());
    }
  }
};

struct memory_use {
  std::size_t peak, announced;
};

/// Of the passes over one batch.
template <class Weighting, class Backend, class Experts, class Dispatch>
memory_use passes(const Backend& backend, const Experts& experts, const neighbours& select, const Dispatch& dispatch,
                  std::size_t tokens, std::size_t threads, bool padding) {
  using T = typename Experts::value_type;
  using score = hmoe::routing::linear<T>;
  using router_type = hmoe::routing::router<score, neighbours, Weighting>;
  const std::size_t d = experts.d_model();
  router_type router(score(d, experts.size()), select);
  router.set_on_non_finite(hmoe::routing::non_finite::propagate); // a backend may compute nothing
  const hmoe::moe_layer<Experts, router_type, Dispatch> layer(experts, std::move(router), dispatch);
  hmoe::workspace memory;
  const hmoe::context ctx{backend, hmoe::executors::openmp{threads}, memory};
  hmoe::matrix<T> x(tokens, d), y(tokens, d), dx(tokens, d);
  std::vector<std::uint8_t> valid(tokens, 1);
  if (padding && tokens > 1) {
    valid[0] = 0;
    x(0, 0) = 1;
  }
  const hmoe::routing_inputs<T> inputs{.valid = valid};
  layer.forward(ctx, x, y, inputs);
  if constexpr (Experts::trainable) {
    auto tape = layer.make_tape(tokens);
    auto gradients = layer.make_gradients();
    layer.forward(ctx, x, y, tape, inputs);
    layer.backward(ctx, tape, x, dx, gradients);
  }
  return {memory.peak(), layer.workspace_bytes(ctx, tokens, padding)};
}

/// What is announced is enough for every batch, and hardly more than the batch that needs most takes. The widest
/// experts must be neighbours.
template <class Weighting = hmoe::routing::renormalized, class Backend, class Experts, class Dispatch>
void check(const Backend& backend, const Experts& experts, const Dispatch& dispatch, bool padding = false) {
  for (const std::size_t k : {1U, 3U}) {
    const std::size_t threads = k == 1 ? 3 : 1;
    for (const std::size_t tokens : {0U, 1U, 2U, 17U, 129U, 1024U}) {
      CAPTURE(k);
      CAPTURE(tokens);
      std::size_t most = 0;
      const auto see = [&](const memory_use& use) {
        CHECK(use.peak <= use.announced);
        most = std::max(most, use.peak);
        return use.announced;
      };
      for (std::size_t first = 0; first < experts.size(); ++first)
        see(passes<Weighting>(backend, experts, neighbours{first, 0, k}, dispatch, tokens, threads, padding));
      const std::size_t announced =
          see(passes<Weighting>(backend, experts, neighbours{0, k, k}, dispatch, tokens, threads, padding));
      CHECK(4 * announced <= 5 * most + 4 * 65536);
    }
  }
}

} // namespace announced
