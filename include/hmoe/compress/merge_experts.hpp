// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/compress/calibration.hpp>
#include <hmoe/compress/group_experts.hpp>
#include <hmoe/compress/linear_assignment.hpp>
#include <hmoe/compress/merged_bank.hpp>
#include <hmoe/compress/neurons.hpp>
#include <hmoe/compress/replace_experts.hpp>
#include <hmoe/compress/report.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/ffn_weights.hpp>
#include <hmoe/layer/moe_layer.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe::compress {

/// How much each member counts in the mean of a group.
enum class merge_share {
  frequency, ///< its rows of the calibration (M-SMoE, arXiv 2310.01334; HC-SMoE, arXiv 2410.08589)
  equal
};
/// Which neurons of the members become one.
enum class neuron_alignment {
  similar, ///< those of the assignment with the largest Σ of ⟨neuron, neuron⟩ over input rows, biases and output
           ///< columns
  by_index ///< those of the same index, for members that come from one expert (upcycled models)
};
struct merge_options {
  merge_share share = merge_share::frequency;
  neuron_alignment aligned = neuron_alignment::similar;
};

namespace detail {
template <class Bank> using merged_t = std::conditional_t<neuron_bank<Bank>, merged_bank<Bank>, Bank>;

/// For each neuron of expert `from`, the neuron of `to`, which is at least as wide, that it becomes one with.
template <class T, std::size_t Lanes>
[[nodiscard]] std::vector<std::size_t> align_neurons(const experts::ffn_weights<T, Lanes>& weights, std::size_t from,
                                                     std::size_t to, neuron_alignment aligned) {
  const std::size_t rows = weights.width(from), columns = weights.width(to), d = weights.d_model();
  std::vector<std::size_t> result(rows);
  std::iota(result.begin(), result.end(), std::size_t{0});
  if (aligned == neuron_alignment::by_index)
    return result;
  matrix<double> gain(rows, columns);
  for (std::size_t j = 0; j < rows; ++j)
    for (std::size_t i = 0; i < columns; ++i) {
      double sum = 0;
      for (std::size_t l = 0; l < Lanes; ++l) {
        const auto a = weights.lane(from, l).row(j), b = weights.lane(to, l).row(i);
        for (std::size_t k = 0; k < d; ++k)
          sum += static_cast<double>(a[k]) * static_cast<double>(b[k]);
        if (weights.has_biases())
          sum += static_cast<double>(weights.lane_bias(from, l)(0, j)) *
                 static_cast<double>(weights.lane_bias(to, l)(0, i));
      }
      const auto a = weights.output(from), b = weights.output(to);
      for (std::size_t k = 0; k < d; ++k)
        sum += static_cast<double>(a(k, j)) * static_cast<double>(b(k, i));
      gain(j, i) = sum;
    }
  return compress::linear_assignment(gain);
}

/// Expert `to` of the target becomes the mean of members of a bank, by local ids, with these shares.
template <class T, std::size_t Lanes>
void write_mean(const experts::ffn_weights<T, Lanes>& from, const std::vector<std::size_t>& members,
                std::size_t reference, const std::vector<double>& shares, neuron_alignment aligned,
                experts::ffn_weights<T, Lanes>& target, std::size_t to) {
  const std::size_t h = from.width(reference), d = from.d_model();
  constexpr std::size_t none = static_cast<std::size_t>(-1);
  std::vector<std::vector<std::size_t>> partners; // [member][neuron of the reference]
  std::vector<double> present(h);                 // sum of the shares of members that have the neuron
  for (std::size_t m = 0; m < members.size(); ++m) {
    std::vector<std::size_t>& partner = partners.emplace_back(h, none);
    if (members[m] == reference) {
      std::iota(partner.begin(), partner.end(), std::size_t{0});
    } else {
      const auto column = detail::align_neurons(from, members[m], reference, aligned);
      for (std::size_t j = 0; j < column.size(); ++j)
        partner[column[j]] = j;
    }
    for (std::size_t i = 0; i < h; ++i)
      present[i] += partner[i] == none ? 0.0 : shares[m];
  }
  // Written as reference + Σ share · (member − reference), which leaves equal experts exactly as they are.
  const auto mean = [&](T of_reference, double whole, const auto& of_member) {
    double sum = static_cast<double>(of_reference);
    for (std::size_t m = 0; m < members.size(); ++m)
      if (members[m] != reference && shares[m] != 0)
        sum += shares[m] / whole * of_member(m, static_cast<double>(of_reference));
    return static_cast<T>(sum);
  };
  for (std::size_t l = 0; l < Lanes; ++l)
    for (std::size_t i = 0; i < h; ++i) {
      const auto mean_of = [&](T of_reference, const auto& value) {
        return mean(of_reference, present[i], [&](std::size_t m, double r) {
          return partners[m][i] == none ? 0.0 : static_cast<double>(value(m)) - r;
        });
      };
      const auto row = target.lane(to, l).row(i);
      for (std::size_t k = 0; k < d; ++k)
        row[k] = mean_of(from.lane(reference, l)(i, k),
                         [&](std::size_t m) { return from.lane(members[m], l)(partners[m][i], k); });
      if (from.has_biases())
        target.lane_bias(to, l)(0, i) = mean_of(from.lane_bias(reference, l)(0, i), [&](std::size_t m) {
          return from.lane_bias(members[m], l)(0, partners[m][i]);
        });
    }
  for (std::size_t k = 0; k < d; ++k) {
    for (std::size_t i = 0; i < h; ++i)
      target.output(to)(k, i) = mean(from.output(reference)(k, i), 1.0, [&](std::size_t m, double r) {
        return (partners[m][i] == none ? 0.0 : static_cast<double>(from.output(members[m])(k, partners[m][i]))) - r;
      });
    if (from.has_biases())
      target.output_bias(to)(0, k) = mean(from.output_bias(reference)(0, k), 1.0, [&](std::size_t m, double r) {
        return static_cast<double>(from.output_bias(members[m])(0, k)) - r;
      });
  }
}

inline constexpr std::size_t no_group = static_cast<std::size_t>(-1);

/// The bank with one expert for each group, and one for each expert of no_group.
template <class Bank>
[[nodiscard]] merged_bank<Bank> merge_in_bank(const Bank& bank, const std::vector<std::size_t>& ids,
                                              const std::vector<std::size_t>& group_of, const calibration& sums,
                                              const merge_options& options) {
  std::vector<std::vector<std::size_t>> members; // local ids of each stored expert
  std::vector<std::size_t> stored_of, widths, references;
  std::vector<std::vector<double>> shares;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::size_t s = members.size();
    for (std::size_t other = 0; other < i && group_of[ids[i]] != no_group; ++other)
      if (group_of[ids[other]] == group_of[ids[i]])
        s = std::min(s, stored_of[other]);
    if (s == members.size())
      members.emplace_back();
    members[s].push_back(i);
    stored_of.push_back(s);
  }
  for (const auto& own : members) {
    const auto rows = [&](std::size_t i) {
      return options.share == merge_share::equal ? std::size_t{1} : sums.expert(ids[i]).rows;
    };
    std::size_t total = 0, reference = own.front();
    for (const std::size_t i : own) {
      total += rows(i);
      if (bank.width(i) != bank.width(reference) ? bank.width(i) > bank.width(reference) : rows(i) > rows(reference))
        reference = i;
    }
    std::vector<double>& share = shares.emplace_back();
    for (const std::size_t i : own)
      share.push_back(total == 0 ? 1.0 / static_cast<double>(own.size())
                                 : static_cast<double>(rows(i)) / static_cast<double>(total));
    references.push_back(reference);
    widths.push_back(bank.width(reference));
  }
  const auto& from = bank.weights();
  std::remove_cvref_t<decltype(from)> to(from.d_model(), widths,
                                         from.has_biases() ? experts::biases::all : experts::biases::none);
  for (std::size_t s = 0; s < members.size(); ++s)
    if (members[s].size() == 1)
      detail::copy_expert(from, members[s].front(), to, s);
    else
      detail::write_mean(from, members[s], references[s], shares[s], options.aligned, to, s);
  return merged_bank<Bank>(detail::with_weights(bank, std::move(to)), std::move(stored_of));
}
} // namespace detail

/// A layer for inference in which the experts of each group share the weights of one: their mean, after their neurons
/// were brought into the order of the widest member (of those, the one with most rows of the calibration). The router
/// keeps its row for each of them, so ids and weights stay what they are, and both lead to the same weights; those are
/// in memory once (merged_bank). The group is as wide as its widest member; where a narrower one has no neuron for one
/// of that, it counts as a neuron with an output column of 0 and is left out of the mean of the input rows. Experts
/// that are equal but for the order of their neurons give the same expert again, to the bit where the order is the
/// same, too. Groups are of one bank each, of experts with neurons (group_by_output makes some); alignment takes h³
/// time and 8 h² bytes for width h. Only the change of the output that is measured can be told: report.predicted stays
/// empty. hmoe::error for ids that are not there, in two groups, or of two banks.
template <class... Banks, class Router, class Dispatch>
[[nodiscard]] auto merge_experts(const moe_layer<expert_set<Banks...>, Router, Dispatch>& layer,
                                 const calibration& sums, const expert_groups& groups,
                                 const merge_options& options = merge_options()) {
  static_assert((neuron_bank<Banks> || ...), "hmoe::compress::merge_experts: no bank of this layer has neurons: only "
                                             "experts of a glu_bank, gpt_oss_glu_bank or mlp_bank can be merged");
  detail::check_calibration(layer, sums);
  const auto& set = layer.experts();
  std::vector<std::size_t> all;
  for (const auto& group : groups) {
    all.insert(all.end(), group.begin(), group.end());
    for (const std::size_t e : group)
      require(e >= set.size() || group.front() >= set.size() || set.bank_index(e) == set.bank_index(group.front()),
              "experts ", group.front(), " and ", e, " shall be merged, but they are in different banks");
  }
  (void)detail::marked(layer, all, "merged");
  std::vector<std::size_t> group_of(set.size(), detail::no_group);
  for (std::size_t g = 0; g < groups.size(); ++g)
    for (const std::size_t e : groups[g])
      group_of[e] = g;
  const auto merged = [&]<class Bank>(const Bank& bank, const std::vector<std::size_t>& ids) -> detail::merged_t<Bank> {
    if constexpr (neuron_bank<Bank>)
      return detail::merge_in_bank(bank, ids, group_of, sums, options);
    else
      return bank;
  };
  auto experts = [&]<std::size_t... B>(std::index_sequence<B...>) {
    return expert_set<detail::merged_t<Banks>...>(set.ids(), merged(set.template bank<B>(), set.ids().of_bank[B])...);
  }(std::index_sequence_for<Banks...>{});
  return detail::with_report(layer, layer.with_experts(std::move(experts)),
                             [&](std::size_t e) { return sums.load(e); });
}

} // namespace hmoe::compress

#include <hmoe/core/macros_on.hpp>
