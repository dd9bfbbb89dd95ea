// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/testing/dispatch_laws.hpp>

#include "any_strategy.hpp"

#include <string>
#include <utility>

namespace benchmarks {

/// Adds a strategy to those that are measured; at namespace scope, in a source file of its own:
///   const benchmarks::registration registered{"mine", my_strategy{}};
/// The laws of dispatch are checked before the first measurement, and a strategy that breaks one is not measured. The
/// options are those of testing::check_dispatch: whether it drops entries, and whether its bits are those of the
/// others.
struct registration {
  template <class Dispatch>
  registration(std::string name, Dispatch dispatch, hmoe::testing::dispatch_options options = {}) {
    named_strategy made = make_strategy(std::move(name), dispatch, options.drops);
    made.bit_exact = options.bit_exact;
    made.laws = [dispatch, options] {
      const hmoe::testing::report found = hmoe::testing::check_dispatch(dispatch, options);
      return found.ok() ? std::string() : found.text();
    };
    strategies().push_back(std::move(made));
  }
};

} // namespace benchmarks
