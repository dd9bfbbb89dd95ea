// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assertions.hpp>
#include <hmoe/core/assignment.hpp>
#include <hmoe/core/error.hpp>

#include <cstddef>
#include <span>

namespace hmoe {

/// What one expert costs.
struct expert_cost {
  std::size_t width = 0;      ///< hidden width
  std::size_t parameters = 0; ///< weights and biases
  std::size_t bytes = 0;      ///< of these parameters
  double flops_per_token = 0; ///< forward; a multiply-add counts as two; backward costs twice as much again
};

/// The costs of experts by id, as a layer, or a list, has them when they are read. That must outlive this object, which
/// holds no list of its own: asking a layer for its costs allocates nothing.
class expert_costs {
public:
  expert_costs() = default;
  explicit expert_costs(std::span<const expert_cost> list) noexcept
      : owner_(list.data()), size_(list.size()),
        of_([](const void* costs, std::size_t e) { return static_cast<const expert_cost*>(costs)[e]; }) {}
  /// Of an expert_set.
  template <class Experts>
    requires requires(const Experts& experts, std::size_t e) { experts.flops_per_row(e); }
  explicit expert_costs(const Experts& experts) noexcept
      : owner_(&experts), size_(experts.size()), of_([](const void* set, std::size_t e) {
          const Experts& of = *static_cast<const Experts*>(set);
          return expert_cost{of.width(e), of.parameter_count(e), of.bytes(e), of.flops_per_row(e)};
        }) {}

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] expert_cost operator[](std::size_t e) const {
    HMOE_ASSERT_INDEX("expert", e, size_);
    return of_(owner_, e);
  }

  class iterator {
  public:
    iterator(const expert_costs& costs, std::size_t e) noexcept : costs_(&costs), e_(e) {}
    [[nodiscard]] expert_cost operator*() const { return (*costs_)[e_]; }
    iterator& operator++() noexcept {
      ++e_;
      return *this;
    }
    [[nodiscard]] bool operator==(const iterator&) const = default;

  private:
    const expert_costs* costs_;
    std::size_t e_;
  };
  [[nodiscard]] iterator begin() const noexcept { return {*this, 0}; }
  [[nodiscard]] iterator end() const noexcept { return {*this, size_}; }

private:
  const void* owner_ = nullptr;
  std::size_t size_ = 0;
  expert_cost (*of_)(const void*, std::size_t) = nullptr;
};

/// What a token activates on average: its selected experts and the router.
struct activated_cost {
  double experts = 0;    ///< experts per token
  double width = 0;      ///< sum of their widths
  double parameters = 0; ///< weights and biases, router included
  double bytes = 0;      ///< of these parameters
  double flops = 0;      ///< forward, router included
};

/// Static costs of a layer, and what an assignment makes of them. The layer must outlive them.
struct layer_cost {
  expert_costs experts;
  std::size_t router_parameters = 0;
  std::size_t router_bytes = 0;
  double router_flops_per_token = 0;

  [[nodiscard]] std::size_t parameters() const {
    std::size_t sum = router_parameters;
    for (const expert_cost e : experts)
      sum += e.parameters;
    return sum;
  }
  [[nodiscard]] std::size_t bytes() const {
    std::size_t sum = router_bytes;
    for (const expert_cost e : experts)
      sum += e.bytes;
    return sum;
  }

  /// Mean over the tokens of a batch; all zero but for the router when there are none.
  template <class T> [[nodiscard]] activated_cost activated(const assignment<T>& assigned) const {
    activated_cost sum;
    for (const index_t e : assigned.experts()) {
      require(e < experts.size(), "the assignment names expert ", e, ", the layer has ", experts.size());
      const expert_cost cost = experts[e];
      sum.experts += 1;
      sum.width += static_cast<double>(cost.width);
      sum.parameters += static_cast<double>(cost.parameters);
      sum.bytes += static_cast<double>(cost.bytes);
      sum.flops += cost.flops_per_token;
    }
    const double tokens = assigned.valid_tokens() == 0 ? 1.0 : static_cast<double>(assigned.valid_tokens());
    return {sum.experts / tokens, sum.width / tokens, sum.parameters / tokens + static_cast<double>(router_parameters),
            sum.bytes / tokens + static_cast<double>(router_bytes), sum.flops / tokens + router_flops_per_token};
  }
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
