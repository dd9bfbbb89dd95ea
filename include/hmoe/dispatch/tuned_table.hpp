// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/dispatch/strategy.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

namespace hmoe::dispatch {

/// The experts that a table was measured with.
struct tuned_shape {
  std::size_t d_model = 0, experts = 0, bytes = 0, threads = 0;
  bool operator==(const tuned_shape&) const = default;
};
template <class Context, class Experts> [[nodiscard]] tuned_shape shape_of(const Context& ctx, const Experts& experts) {
  tuned_shape shape{experts.d_model(), experts.size(), 0, ctx.executor().concurrency()};
  for (std::size_t e = 0; e < experts.size(); ++e)
    shape.bytes += experts.bytes(e);
  return shape;
}

/// The quickest strategies that dispatch::tune measured, for ascending numbers of tokens. io::read_tuned_table and
/// io::write_tuned_table know it as a file.
struct tuned_table {
  struct choice {
    std::size_t tokens;
    strategy inference, training;
  };
  std::string cpu; ///< as io::cpu_name says
  tuned_shape shape;
  std::vector<choice> choices;

  [[nodiscard]] bool empty() const noexcept { return choices.empty(); }
  /// hmoe::error unless numbers of tokens ascend from 1 and no choice is dense.
  void validate() const {
    for (std::size_t i = 0; i < choices.size(); ++i) {
      require(choices[i].tokens > (i == 0 ? 0 : choices[i - 1].tokens), "a tuned table has ", choices[i].tokens,
              " tokens in line ", i, ", which do not ascend from 1");
      require(choices[i].inference != strategy::dense && choices[i].training != strategy::dense,
              "a tuned table picks dense for ", choices[i].tokens, " tokens: automatic cannot take it");
    }
  }
  /// The choice of the number of tokens that is nearest by ratio.
  [[nodiscard]] strategy pick(std::size_t tokens, bool training) const noexcept {
    const choice* best = &choices.front();
    const auto distance = [&](const choice& c) {
      return std::abs(std::log(static_cast<double>(std::max<std::size_t>(tokens, 1)) / static_cast<double>(c.tokens)));
    };
    for (const choice& c : choices)
      if (distance(c) < distance(*best))
        best = &c;
    return training ? best->training : best->inference;
  }
};

} // namespace hmoe::dispatch
