// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/error.hpp>

#include <cstddef>
#include <vector>

namespace hmoe {

/// What one expert costs.
struct expert_cost {
  std::size_t width = 0;      ///< hidden width
  std::size_t parameters = 0; ///< weights and biases
  std::size_t bytes = 0;      ///< of these parameters
  double flops_per_token = 0; ///< forward; a multiply-add counts as two; backward costs twice as much again
};

/// What a token activates on average: its selected experts and the router.
struct activated_cost {
  double experts = 0;    ///< experts per token
  double width = 0;      ///< sum of their widths
  double parameters = 0; ///< weights and biases, router included
  double bytes = 0;      ///< of these parameters
  double flops = 0;      ///< forward, router included
};

/// Static costs of a layer, and what an assignment makes of them.
struct layer_cost {
  std::vector<expert_cost> experts;
  std::size_t router_parameters = 0;
  std::size_t router_bytes = 0;
  double router_flops_per_token = 0;

  [[nodiscard]] std::size_t parameters() const noexcept {
    std::size_t sum = router_parameters;
    for (const expert_cost& e : experts)
      sum += e.parameters;
    return sum;
  }
  [[nodiscard]] std::size_t bytes() const noexcept {
    std::size_t sum = router_bytes;
    for (const expert_cost& e : experts)
      sum += e.bytes;
    return sum;
  }

  /// Mean over the tokens of a batch; all zero but for the router when there are none.
  template <class T> [[nodiscard]] activated_cost activated(const assignment<T>& assigned) const {
    activated_cost sum;
    for (const index_t e : assigned.experts()) {
      require(e < experts.size(), "the assignment names expert ", e, ", the layer has ", experts.size());
      sum.experts += 1;
      sum.width += static_cast<double>(experts[e].width);
      sum.parameters += static_cast<double>(experts[e].parameters);
      sum.bytes += static_cast<double>(experts[e].bytes);
      sum.flops += experts[e].flops_per_token;
    }
    const double tokens = assigned.valid_tokens() == 0 ? 1.0 : static_cast<double>(assigned.valid_tokens());
    return {sum.experts / tokens, sum.width / tokens, sum.parameters / tokens + static_cast<double>(router_parameters),
            sum.bytes / tokens + static_cast<double>(router_bytes), sum.flops / tokens + router_flops_per_token};
  }
};

} // namespace hmoe
