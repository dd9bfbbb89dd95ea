// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/compress/calibration.hpp>
#include <hmoe/compress/neurons.hpp>
#include <hmoe/compress/report.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/experts/activation.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/ffn_weights.hpp>
#include <hmoe/experts/mlp.hpp>
#include <hmoe/layer/moe_layer.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

/// Whole experts in place of which a layer has less. The router keeps its row for each of them, so ids and weights of
/// all experts stay what they are.
namespace hmoe::compress {

/// The ids of the `count` least important experts, ascending; ties go to the lower id.
[[nodiscard]] inline std::vector<std::size_t> least_important(const std::vector<double>& importance,
                                                              std::size_t count) {
  require(count <= importance.size(), count, " of ", importance.size(), " experts are asked for");
  std::vector<std::size_t> ids(importance.size());
  std::iota(ids.begin(), ids.end(), std::size_t{0});
  std::sort(ids.begin(), ids.end(), [&](std::size_t a, std::size_t b) {
    return importance[a] != importance[b] ? importance[a] < importance[b] : a < b;
  });
  ids.resize(count);
  std::ranges::sort(ids);
  return ids;
}

/// [N] E‖Δy‖² over all tokens if the expert alone is replaced by the mean of its outputs, ō = (1/n) Σ o:
/// (1/T) Σ u² ‖o − ō‖². Small for experts that are seldom chosen or whose output varies little, as MoNE looks for them.
[[nodiscard]] inline std::vector<double> change_by_constant(const calibration& sums) {
  std::vector<double> result(sums.size());
  for (std::size_t e = 0; e < sums.size(); ++e) {
    const expert_sums& expert = sums.expert(e);
    if (expert.rows == 0)
      continue;
    double change = expert.weighted_square;
    for (std::size_t i = 0; i < sums.d_model(); ++i) {
      const double mean = expert.output[i] / static_cast<double>(expert.rows);
      change += mean * (mean * expert.weight_squared - 2 * expert.weighted_output[i]);
    }
    result[e] = std::max(change, 0.0) / static_cast<double>(sums.tokens());
  }
  return result;
}
/// [N] E‖Δy‖² over all tokens if the expert alone returns 0: (1/T) Σ u² ‖o‖².
[[nodiscard]] inline std::vector<double> change_by_zero(const calibration& sums) {
  std::vector<double> result(sums.size());
  for (std::size_t e = 0; e < sums.size(); ++e)
    if (sums.tokens() != 0)
      result[e] = sums.expert(e).weighted_square / static_cast<double>(sums.tokens());
  return result;
}

namespace detail {
/// Copies all tensors of expert `from` of one bank to expert `to` of another with the same width.
template <class T, std::size_t Lanes>
void copy_expert(const experts::ffn_weights<T, Lanes>& source, std::size_t from, experts::ffn_weights<T, Lanes>& target,
                 std::size_t to) {
  const auto copy = [](matrix_view<const T> a, matrix_view<T> b) {
    for (std::size_t r = 0; r < a.rows(); ++r)
      std::ranges::copy(a.row(r), b.row(r).begin());
  };
  for (std::size_t l = 0; l < Lanes; ++l) {
    copy(source.lane(from, l), target.lane(to, l));
    copy(source.lane_bias(from, l), target.lane_bias(to, l));
  }
  copy(source.output(from), target.output(to));
  copy(source.output_bias(from), target.output_bias(to));
}

/// Ascending ids of experts with neurons, each once.
template <class Layer>
[[nodiscard]] std::vector<bool> marked(const Layer& layer, const std::vector<std::size_t>& ids,
                                       const char* what = "replaced") {
  std::vector<bool> marks(layer.size());
  for (const std::size_t e : ids) {
    require(e < layer.size(), "expert ", e, " shall be ", what, ", the layer has ", layer.size());
    require(!marks[e], "expert ", e, " shall be ", what, " twice");
    marks[e] = true;
  }
  layer.experts().for_each_bank([&]<class Bank>(const Bank&, vector_view<const std::size_t> own) {
    for (const std::size_t e : own)
      require(neuron_bank<Bank> || !marks[e], "expert ", e,
              " has no neurons: only experts of a glu_bank, gpt_oss_glu_bank or mlp_bank can be ", what);
  });
  return marks;
}
template <class Layer> void check_calibration(const Layer& layer, const calibration& sums) {
  require(sums.size() == layer.size() && sums.d_model() == layer.d_model(), "the calibration is of a layer with ",
          sums.size(), " experts and d_model ", sums.d_model(), ", this one has ", layer.size(), " and ",
          layer.d_model());
}
} // namespace detail

/// The experts with these ids get width 0 and return 0, output bias included: tokens that the router sends there keep
/// what their other experts return, with the weights they have. Predicted is Σ change_by_zero, right if a token meets
/// at most one of them.
template <class Layer>
[[nodiscard]] compressed<Layer> drop_experts(const Layer& layer, const calibration& sums,
                                             const std::vector<std::size_t>& ids) {
  detail::check_calibration(layer, sums);
  const std::vector<bool> dropped = detail::marked(layer, ids);
  auto kept = detail::with_neuron_banks(layer.experts(), [&](const auto& bank, const std::vector<std::size_t>& own) {
    neuron_choice chosen(own.size());
    for (std::size_t i = 0; i < own.size(); ++i)
      if (!dropped[own[i]]) {
        chosen[i].resize(bank.width(i));
        std::iota(chosen[i].begin(), chosen[i].end(), std::size_t{0});
      }
    auto weights = detail::take_neurons(bank.weights(), chosen);
    for (std::size_t i = 0; i < own.size(); ++i)
      if (dropped[own[i]] && weights.has_biases())
        std::ranges::fill(weights.output_bias(i).row(0), typename Layer::value_type(0));
    return detail::with_weights(bank, std::move(weights));
  });
  auto result =
      detail::with_report(layer, layer.with_experts(std::move(kept)), [&](std::size_t e) { return sums.load(e); });
  const std::vector<double> changes = compress::change_by_zero(sums);
  double& predicted = result.report.predicted.emplace(0);
  for (const std::size_t e : ids)
    predicted += changes[e];
  return result;
}

/// MoNE (arXiv 2507.00390): the experts with these ids return a constant, the mean of their outputs over the rows of
/// the calibration (0 for an expert without one), times the weight that the router gives. They become a further bank of
/// width 0 with biases, as io::load_ragged_layer reads them (kind "vector"). hmoe::error where a bank would be left
/// without an expert. Predicted is Σ change_by_constant, right if the deviations of several of them from their means
/// are uncorrelated.
template <class... Banks, class Router, class Dispatch>
[[nodiscard]] auto replace_by_constants(const moe_layer<expert_set<Banks...>, Router, Dispatch>& layer,
                                        const calibration& sums, const std::vector<std::size_t>& ids) {
  using T = typename expert_set<Banks...>::value_type;
  using constants = experts::mlp_bank<T, experts::linear>;
  detail::check_calibration(layer, sums);
  require(!ids.empty(), "no expert shall be replaced");
  const std::vector<bool> replaced = detail::marked(layer, ids);
  const auto& set = layer.experts();
  expert_ids numbers;
  const auto rest = [&](const auto& bank, const std::vector<std::size_t>& own) {
    std::vector<std::size_t>& left = numbers.of_bank.emplace_back();
    std::vector<std::size_t> places, widths;
    for (std::size_t i = 0; i < own.size(); ++i)
      if (!replaced[own[i]]) {
        left.push_back(own[i]);
        places.push_back(i);
        widths.push_back(bank.width(i));
      }
    require(!left.empty(), "all experts of bank ", numbers.of_bank.size() - 1,
            " shall become constants: a bank needs one that stays");
    if constexpr (neuron_bank<std::remove_cvref_t<decltype(bank)>>) {
      const auto& from = bank.weights();
      std::remove_cvref_t<decltype(from)> to(set.d_model(), widths,
                                             from.has_biases() ? experts::biases::all : experts::biases::none);
      for (std::size_t i = 0; i < places.size(); ++i)
        detail::copy_expert(from, places[i], to, i);
      return detail::with_weights(bank, std::move(to));
    } else {
      return bank;
    }
  };
  constants means(set.d_model(), std::vector<std::size_t>(ids.size(), 0), experts::biases::all);
  std::vector<std::size_t> constant_ids = ids;
  std::ranges::sort(constant_ids);
  const std::vector<double> changes = compress::change_by_constant(sums);
  double predicted = 0;
  for (std::size_t i = 0; i < constant_ids.size(); ++i) {
    const expert_sums& expert = sums.expert(constant_ids[i]);
    for (std::size_t j = 0; expert.rows != 0 && j < set.d_model(); ++j)
      means.weights().output_bias(i)(0, j) = static_cast<T>(expert.output[j] / static_cast<double>(expert.rows));
    predicted += changes[constant_ids[i]];
  }
  auto experts = [&]<std::size_t... B>(std::index_sequence<B...>) {
    std::tuple<Banks...> banks{rest(set.template bank<B>(), set.ids().of_bank[B])...}; // braces: in this order
    numbers.of_bank.push_back(std::move(constant_ids));
    return expert_set<Banks..., constants>(std::move(numbers), std::move(std::get<B>(banks))..., std::move(means));
  }(std::index_sequence_for<Banks...>{});
  auto result =
      detail::with_report(layer, layer.with_experts(std::move(experts)), [&](std::size_t e) { return sums.load(e); });
  result.report.predicted = predicted;
  return result;
}

} // namespace hmoe::compress

#include <hmoe/core/macros_on.hpp>
