// SPDX-License-Identifier: MIT
#include <hmoe/dispatch/blocked.hpp>
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/padded.hpp>
#include <hmoe/dispatch/per_token.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>

#include "any_strategy.hpp"

namespace benchmarks {

std::vector<named_strategy>& strategies() {
  namespace dispatch = hmoe::dispatch;
  static std::vector<named_strategy> all{
      make_strategy("sorted", dispatch::sorted<>{}), // the one whose results the others are compared with
      make_strategy("scattered", dispatch::scattered{}),
      make_strategy("per_token", dispatch::per_token{}),
      make_strategy("blocked", dispatch::blocked<64>{}),
      make_strategy("looped", dispatch::looped{}),
      make_strategy("dense", dispatch::dense{}),
      make_strategy("padded", dispatch::padded{hmoe::capacity::by_factor{1.25}}, /*drops=*/true),
  };
  return all;
}

} // namespace benchmarks
