// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/layer/cost.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace hmoe {

/// One copy of an expert: the rank that has it, and the share of the expert's rows that go there.
struct replica {
  std::size_t rank = 0;
  double share = 1;
  bool operator==(const replica&) const = default;
};

/// Which ranks have which experts, and how the rows of an expert with several replicas are divided among them.
class expert_placement {
public:
  /// The replicas of each expert, ascending by rank. hmoe::error for an expert without one, a rank that there is not,
  /// ranks that do not ascend, and shares that are negative or do not add up to 1.
  expert_placement(std::size_t ranks, std::vector<std::vector<replica>> of_expert)
      : ranks_(ranks), of_expert_(std::move(of_expert)) {
    require(ranks != 0, "expert_placement on 0 ranks: give at least 1");
    for (std::size_t e = 0; e < of_expert_.size(); ++e) {
      const std::vector<replica>& own = of_expert_[e];
      require(!own.empty(), "expert_placement: expert ", e, " is on no rank");
      double sum = 0;
      for (std::size_t i = 0; i < own.size(); ++i) {
        require(own[i].rank < ranks, "expert_placement: expert ", e, " is on rank ", own[i].rank, ", there are ",
                ranks);
        require(i == 0 || own[i - 1].rank < own[i].rank, "expert_placement: the ranks of expert ", e,
                " do not ascend: ", i == 0 ? 0 : own[i - 1].rank, " before ", own[i].rank);
        require(own[i].share >= 0, "expert_placement: rank ", own[i].rank, " has the share ", own[i].share,
                " of expert ", e);
        sum += own[i].share;
      }
      require(std::abs(sum - 1) <= 1e-9, "expert_placement: the shares of expert ", e, " add up to ", sum,
              ", not to 1");
    }
  }

  [[nodiscard]] std::size_t ranks() const noexcept { return ranks_; }
  [[nodiscard]] std::size_t experts() const noexcept { return of_expert_.size(); }
  [[nodiscard]] std::span<const replica> replicas(std::size_t expert) const noexcept { return of_expert_[expert]; }
  /// The number of replicas of all experts together.
  [[nodiscard]] std::size_t slots() const noexcept {
    std::size_t sum = 0;
    for (const auto& own : of_expert_)
      sum += own.size();
    return sum;
  }
  [[nodiscard]] bool has(std::size_t rank, std::size_t expert) const noexcept {
    return std::ranges::any_of(of_expert_[expert], [&](const replica& r) { return r.rank == rank; });
  }

  /// The rank that computes row `row` of the `rows` rows that rank `source` has for this expert. Rows are divided by
  /// the shares, neighbouring rows going to the same rank; sources with few rows differ in where they begin, so that
  /// shares hold over many sources, too.
  [[nodiscard]] std::size_t rank_of(std::size_t expert, std::size_t source, std::size_t row,
                                    std::size_t rows) const noexcept {
    const std::vector<replica>& own = of_expert_[expert];
    if (own.size() == 1)
      return own[0].rank;
    constexpr double golden = 0.6180339887498949;
    const double phase = static_cast<double>(source) * golden;
    const double place = (static_cast<double>(row) + (phase - std::floor(phase))) / static_cast<double>(rows);
    double sum = 0;
    std::size_t last = 0;
    for (std::size_t i = 0; i < own.size(); ++i) {
      sum += own[i].share;
      if (own[i].share > 0)
        last = i;
      if (place < sum)
        break;
    }
    return own[last].rank;
  }

  bool operator==(const expert_placement&) const = default;

private:
  std::size_t ranks_;
  std::vector<std::vector<replica>> of_expert_;
};

/// Functions from what experts need to a placement. They look at nothing else, so that all ranks come to the same one.
namespace placement {

inline constexpr std::size_t unlimited = std::numeric_limits<std::size_t>::max();

/// What is to be placed, and where.
struct problem {
  std::vector<double> loads{};         ///< [N] rows of each expert, expected or counted, in any unit
  std::vector<double> flops_per_row{}; ///< [N]
  std::vector<std::size_t> bytes{};    ///< [N] of the parameters of each
  std::size_t ranks = 1;
  std::size_t nodes = 1; ///< machines with ranks / nodes neighbouring ranks each
  std::size_t bytes_per_rank = unlimited;
  std::size_t slots_per_rank = unlimited; ///< experts, replicas included

  [[nodiscard]] std::size_t experts() const noexcept { return loads.size(); }
  /// FLOPs of all rows of an expert.
  [[nodiscard]] double cost(std::size_t e) const noexcept { return loads[e] * flops_per_row[e]; }
  [[nodiscard]] std::size_t total_bytes() const noexcept {
    std::size_t sum = 0;
    for (const std::size_t b : bytes)
      sum += b;
    return sum;
  }
  /// hmoe::error with the numbers unless all lists are of one length, loads and FLOPs are finite and not negative, and
  /// the ranks are a multiple of the nodes.
  void validate() const {
    require(flops_per_row.size() == experts() && bytes.size() == experts(), "placement: ", experts(), " loads, ",
            flops_per_row.size(), " numbers of FLOPs and ", bytes.size(), " of bytes: give one of each per expert");
    require(ranks != 0 && nodes != 0 && ranks % nodes == 0, "placement: ", ranks, " ranks on ", nodes,
            " nodes: give a multiple of the nodes, and at least 1");
    for (std::size_t e = 0; e < experts(); ++e)
      require(loads[e] >= 0 && flops_per_row[e] >= 0 && std::isfinite(cost(e)), "placement: expert ", e,
              " has the load ", loads[e], " and ", flops_per_row[e], " FLOPs per row");
  }
};

/// The experts of a layer under some load; layer.cost() has their FLOPs and bytes.
[[nodiscard]] inline problem of_layer(const layer_cost& cost, std::vector<double> loads, std::size_t ranks) {
  problem result;
  result.loads = std::move(loads);
  result.ranks = ranks;
  for (const expert_cost& e : cost.experts) {
    result.flops_per_row.push_back(e.flops_per_token);
    result.bytes.push_back(e.bytes);
  }
  result.validate();
  return result;
}

/// The same for feed-forward experts of these widths without biases, of which no rank has a layer with all: `matrices`
/// [h×d] of each, 3 of a GLU and 2 of an MLP, with values of so many bytes.
[[nodiscard]] inline problem of_widths(std::span<const std::size_t> widths, std::size_t d_model, std::size_t matrices,
                                       std::size_t value_bytes, std::vector<double> loads, std::size_t ranks) {
  problem result;
  result.loads = std::move(loads);
  result.ranks = ranks;
  for (const std::size_t h : widths) {
    result.flops_per_row.push_back(2.0 * static_cast<double>(matrices * d_model * h));
    result.bytes.push_back(matrices * d_model * h * value_bytes);
  }
  result.validate();
  return result;
}

/// The widths with which a rank makes banks that have the weights of its own experts only: 0 for the others. Layers
/// with dispatch::expert_parallel and the like take such banks; widths() of the layer are those of all experts.
[[nodiscard]] inline std::vector<std::size_t> own_widths(const expert_placement& placed, std::size_t rank,
                                                         std::vector<std::size_t> widths) {
  require(widths.size() == placed.experts(), "own_widths: ", widths.size(), " widths for a placement of ",
          placed.experts(), " experts");
  for (std::size_t e = 0; e < widths.size(); ++e)
    if (!placed.has(rank, e))
      widths[e] = 0;
  return widths;
}

/// [ranks] FLOPs of each rank, where rows are divided exactly by the shares. hmoe::error where the placement and the
/// lists of the problem are not of as many experts.
[[nodiscard]] inline std::vector<double> flops_by_rank(const expert_placement& placed, const problem& p) {
  require(placed.experts() == p.experts() && p.flops_per_row.size() == p.experts(), "flops_by_rank: a placement of ",
          placed.experts(), " experts with ", p.experts(), " loads and ", p.flops_per_row.size(), " numbers of FLOPs");
  std::vector<double> flops(placed.ranks(), 0.0);
  for (std::size_t e = 0; e < placed.experts(); ++e)
    for (const replica& r : placed.replicas(e))
      flops[r.rank] += p.cost(e) * r.share;
  return flops;
}
/// FLOPs of the busiest rank over their mean; 1 where there are none.
[[nodiscard]] inline double imbalance(const expert_placement& placed, const problem& p) {
  double most = 0, sum = 0;
  for (const double flops : flops_by_rank(placed, p)) {
    most = std::max(most, flops);
    sum += flops;
  }
  return sum > 0 ? most * static_cast<double>(placed.ranks()) / sum : 1.0;
}
/// hmoe::error with the rank and the numbers where a rank has more than the problem allows, and where the problem is of
/// another number of experts.
inline void check_memory(const expert_placement& placed, const problem& p) {
  require(placed.experts() == p.bytes.size(), "placement: of ", placed.experts(), " experts with the bytes of ",
          p.bytes.size());
  std::vector<std::size_t> bytes(placed.ranks(), 0), slots(placed.ranks(), 0);
  for (std::size_t e = 0; e < placed.experts(); ++e)
    for (const replica& r : placed.replicas(e)) {
      bytes[r.rank] += p.bytes[e];
      ++slots[r.rank];
    }
  for (std::size_t r = 0; r < placed.ranks(); ++r) {
    require(bytes[r] <= p.bytes_per_rank, "placement: rank ", r, " would have ", bytes[r], " bytes of experts, of ",
            p.bytes_per_rank, " possible");
    require(slots[r] <= p.slots_per_rank, "placement: rank ", r, " would have ", slots[r], " experts, of ",
            p.slots_per_rank, " possible");
  }
}

/// Neighbouring experts on one rank, as many on each as there are on others, the first ranks having one more.
[[nodiscard]] inline expert_placement contiguous(std::size_t experts, std::size_t ranks) {
  std::vector<std::vector<replica>> of(experts);
  for (std::size_t r = 0, e = 0; r < ranks; ++r)
    for (const std::size_t end = e + experts / ranks + (r < experts % ranks ? 1 : 0); e < end; ++e)
      of[e] = {{r, 1.0}};
  return {ranks, std::move(of)};
}
/// Expert e on rank e mod ranks.
[[nodiscard]] inline expert_placement round_robin(std::size_t experts, std::size_t ranks) {
  std::vector<std::vector<replica>> of(experts);
  for (std::size_t e = 0; e < experts && ranks != 0; ++e)
    of[e] = {{e % ranks, 1.0}};
  return {ranks, std::move(of)};
}
/// The same for a problem, whose loads they do not look at. hmoe::error where a rank has too little memory.
[[nodiscard]] inline expert_placement contiguous(const problem& p) {
  p.validate();
  expert_placement result = contiguous(p.experts(), p.ranks);
  check_memory(result, p);
  return result;
}
[[nodiscard]] inline expert_placement round_robin(const problem& p) {
  p.validate();
  expert_placement result = round_robin(p.experts(), p.ranks);
  check_memory(result, p);
  return result;
}

} // namespace placement
} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
