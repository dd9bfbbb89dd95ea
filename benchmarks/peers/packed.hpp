// SPDX-License-Identifier: MIT
#pragma once

#include "../dispatch/any_experts.hpp"
#include "../support/machine.hpp"
#include "problem.hpp"

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

namespace benchmarks {

/// A form in which hmoe holds weights, by the name that cells have. A further one is a line in packed.cpp.
struct peer_format {
  std::string_view name;
  multiplier kind;         ///< the instructions whose peak its limit is
  double bytes_per_weight; ///< scales included
  std::function<std::unique_ptr<any_experts>(const mapped_weights&)> pack;
};

[[nodiscard]] const std::vector<peer_format>& peer_formats();

} // namespace benchmarks
