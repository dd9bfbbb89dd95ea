// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/weightings/sigmoid_of_logit.hpp>

#include "support/random_matrix.hpp"
#include "support/router_gradients.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

namespace batches {

/// A batch-wide selection takes no more of the workspace than it says, and a router of it has its gradients right.
template <class Selection> void check_workspace(Selection select) {
  using router = hmoe::routing::router<hmoe::routing::linear<double>, Selection, hmoe::routing::sigmoid_of_logit>;
  hmoe::moe_layer layer{
      hmoe::expert_set{hmoe::experts::glu_bank<double, hmoe::experts::silu>(4, std::vector<std::size_t>{1, 2, 3})},
      router(4, 3, select)};
  layer.initialize(hmoe::seed{1});
  hmoe::workspace memory;
  const hmoe::context ctx{hmoe::backends::reference{}, hmoe::executors::serial{}, memory};
  support::random_source random(1);
  const auto x = support::random_matrix<double>(random, 65, 4);
  hmoe::matrix<double> y(65, 4);
  layer.forward(ctx, x, y);
  CHECK(memory.peak() <= layer.workspace_bytes(ctx, 65));
  CHECK_ROUTER_GRADIENTS(router(4, 3, select));
}

} // namespace batches
