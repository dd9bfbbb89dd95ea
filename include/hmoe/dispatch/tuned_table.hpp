// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/strategy.hpp>
#include <hmoe/execution/context.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::dispatch {

/// The experts that a table was measured with.
struct tuned_shape {
  std::size_t d_model = 0, experts = 0, bytes = 0, threads = 0;
  bool operator==(const tuned_shape&) const = default;
};
template <execution_context Context, dispatched_experts<Context> Experts>
[[nodiscard]] tuned_shape shape_of(const Context& ctx, const Experts& experts) {
  tuned_shape shape{experts.d_model(), experts.size(), 0, ctx.executor().concurrency()};
  for (std::size_t e = 0; e < experts.size(); ++e)
    shape.bytes += experts.bytes(e);
  return shape;
}

/// The quickest strategies that dispatch::tune measured, by number of tokens and by how many experts share them.
/// io::read_tuned_table and io::write_tuned_table know it as a file.
struct tuned_table {
  struct choice {
    std::size_t tokens;
    double effective_experts; ///< of the measured batch: effective_experts(load)
    strategy inference, training;
  };
  std::string cpu; ///< as io::cpu_name says
  tuned_shape shape;
  std::vector<choice> choices;

  [[nodiscard]] bool empty() const noexcept { return choices.empty(); }
  /// hmoe::error unless numbers of tokens ascend from 1, effective experts ascend among lines of the same tokens, and
  /// no choice is dense.
  void validate() const {
    for (std::size_t i = 0; i < choices.size(); ++i) {
      const choice& own = choices[i];
      const bool same = i != 0 && choices[i - 1].tokens == own.tokens;
      require(same || own.tokens > (i == 0 ? 0 : choices[i - 1].tokens), "a tuned table has ", own.tokens,
              " tokens in line ", i, ", which do not ascend from 1");
      require(own.effective_experts > (same ? choices[i - 1].effective_experts : 0), "a tuned table has ",
              own.effective_experts, " effective experts in line ", i, ", which do not ascend from above 0");
      require(own.inference != strategy::dense && own.training != strategy::dense, "a tuned table picks dense for ",
              own.tokens, " tokens: automatic cannot take it");
    }
  }
  /// The choice for the number of tokens that is nearest by ratio, and of those the one whose effective experts are.
  [[nodiscard]] strategy pick(std::size_t tokens, double effective_experts, bool training) const noexcept {
    const auto apart = [](double a, double b) { return std::abs(std::log(std::max(a, 1.0) / std::max(b, 1.0))); };
    const auto distance = [&](const choice& c) {
      return std::pair(apart(static_cast<double>(tokens), static_cast<double>(c.tokens)),
                       apart(effective_experts, c.effective_experts));
    };
    const choice& best = *std::min_element(choices.begin(), choices.end(),
                                           [&](const choice& a, const choice& b) { return distance(a) < distance(b); });
    return training ? best.training : best.inference;
  }
};

} // namespace hmoe::dispatch

#include <hmoe/core/macros_on.hpp>
