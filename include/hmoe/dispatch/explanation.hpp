// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/dispatch/cost_model.hpp>
#include <hmoe/dispatch/strategy.hpp>

#include <array>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace hmoe::dispatch {

/// What the model says of a batch: layer.explain makes it.
struct explanation {
  struct line {
    strategy which;
    predicted_time time;
  };
  std::vector<line> lines;
  strategy picked = strategy::sorted; ///< by dispatch::automatic
  std::string reason;                 ///< the table of measured times, or the cost model

  /// A table, times in microseconds.
  [[nodiscard]] std::string text() const {
    std::string all = "strategy     weights      flops     hidden       rows      tasks      waits      total  (us)\n";
    for (const line& l : lines) {
      std::array<char, 128> row{};
      std::snprintf(row.data(), row.size(), "%-10s %9.1f  %9.1f  %9.1f  %9.1f  %9.1f  %9.1f  %9.1f\n",
                    std::string(name_of(l.which)).c_str(), l.time.weights * 1e6, l.time.flops * 1e6,
                    0 - std::round(l.time.hidden * 1e7) / 10, l.time.rows * 1e6, l.time.tasks * 1e6, l.time.waits * 1e6,
                    l.time.total() * 1e6);
      all += row.data();
    }
    return all + "automatic picks " + std::string(name_of(picked)) + ", by " + reason + "\n";
  }
};

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
