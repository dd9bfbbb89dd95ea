// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/compress/calibration.hpp>
#include <hmoe/compress/neurons.hpp>
#include <hmoe/core/error.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

/// Importance of experts and neurons from the sums of a calibration. In the formulas n is the number of rows of the
/// expert, T that of all tokens, and sums run over rows; other symbols as in neuron_sums and expert_sums. An expert
/// without a row has importance 0, and so have its neurons.
namespace hmoe::compress {

/// [N] REAP (arXiv 2510.13999): (1/n) Σ u ‖o‖₂, the mean norm of what the expert adds to a token that it is chosen for.
[[nodiscard]] inline std::vector<double> reap(const calibration& sums) {
  std::vector<double> result(sums.size());
  for (std::size_t e = 0; e < sums.size(); ++e)
    if (const expert_sums& expert = sums.expert(e); expert.rows != 0)
      result[e] = expert.weighted_norm / static_cast<double>(expert.rows);
  return result;
}

/// Over which tokens the importance of a neuron is a mean.
enum class mean_over {
  all_tokens,   ///< tokens that the expert does not get count as 0: comparable between experts
  routed_tokens ///< the expert's own: how much the neuron matters where its expert is chosen
};

namespace detail {
/// f(expert's sums, neuron's sums, ‖down[:, i]‖²) for each neuron, times the share of tokens where that is asked for.
template <class Layer, class F>
[[nodiscard]] neuron_values neuron_importance(const Layer& layer, const calibration& sums, mean_over mean, const F& f) {
  require(layer.size() == sums.size() && layer.d_model() == sums.d_model(), "the calibration is of a layer with ",
          sums.size(), " experts and d_model ", sums.d_model(), ", this one has ", layer.size(), " and ",
          layer.d_model());
  neuron_values result(sums.size());
  layer.experts().for_each_bank([&]<class Bank>(const Bank& bank, vector_view<const std::size_t> ids) {
    if constexpr (neuron_bank<Bank>)
      for (std::size_t i = 0; i < ids.size(); ++i) {
        const expert_sums& expert = sums.expert(ids[i]);
        require(expert.neurons.size() == bank.width(i), "the calibration is of a layer whose expert ", ids[i],
                " has width ", expert.neurons.size(), ", this one's has ", bank.width(i));
        std::vector<double>& values = result[ids[i]];
        values.resize(bank.width(i));
        if (expert.rows == 0)
          continue;
        std::vector<double> squares(bank.width(i)); // of the columns of down
        const auto down = bank.weights().output(i);
        for (std::size_t r = 0; r < down.rows(); ++r)
          for (std::size_t j = 0; j < down.cols(); ++j)
            squares[j] += static_cast<double>(down(r, j)) * static_cast<double>(down(r, j));
        const double scale = mean == mean_over::all_tokens ? sums.load(ids[i]) : 1.0;
        for (std::size_t j = 0; j < values.size(); ++j)
          values[j] = scale * f(expert, expert.neurons[j], squares[j]);
      }
  });
  return result;
}
} // namespace detail

/// Magnitude × activation: ‖down[:, i]‖₂ · (1/n) Σ |a_i|, the mean norm of what the neuron adds to its expert's output;
/// with all_tokens the divisor is T. No gradients are needed.
template <class Layer>
[[nodiscard]] neuron_values magnitude_times_activation(const Layer& layer, const calibration& sums,
                                                       mean_over mean = mean_over::all_tokens) {
  return detail::neuron_importance(layer, sums, mean,
                                   [](const expert_sums& expert, const neuron_sums& neuron, double squares) {
                                     return std::sqrt(squares) * neuron.activation / static_cast<double>(expert.rows);
                                   });
}

/// The mean squared norm of what the neuron adds to y: ‖down[:, i]‖² · (1/n) Σ u² a_i². If the contributions of neurons
/// are uncorrelated, cutting some of them changes y by the sum of theirs: E‖Δy‖² = Σ_i of it, with all_tokens.
template <class Layer>
[[nodiscard]] neuron_values squared_contribution(const Layer& layer, const calibration& sums,
                                                 mean_over mean = mean_over::all_tokens) {
  return detail::neuron_importance(layer, sums, mean,
                                   [](const expert_sums& expert, const neuron_sums& neuron, double squares) {
                                     return squares * neuron.weighted_squared / static_cast<double>(expert.rows);
                                   });
}

/// How HEAPr averages the second-order term eᵢᵀ g gᵀ eᵢ, where eᵢ = down[:, i] · a_i is what a neuron (an "atomic
/// expert") adds to its expert's output.
enum class fisher {
  averaged, ///< over g and eᵢ apart, as published: the mean of g gᵀ is the expert's Fisher matrix in output space
  per_token ///< over their product: it keeps that some tokens have both large
};

/// HEAPr (arXiv 2509.22299): the estimated rise of the loss when the neuron is cut, in the second order and with the
/// Fisher matrix in place of the Hessian.
///   averaged    ½ · (1/n) Σ a_i² · (1/n) Σ (gᵀ down[:, i])²  =  ½ E[eᵢᵀ G eᵢ],  G = E[g gᵀ]
///   per_token   ½ · (1/n) Σ (gᵀ eᵢ)²
/// Both come from sums of one value per neuron: since eᵢ is a multiple of down[:, i], no d×d matrix is formed. With
/// all_tokens times n/T, the change of the mean loss of a token; the ranking over all experts wants that. A constant
/// factor of the loss does not change a ranking. hmoe::error where no gradient was added.
template <class Layer>
[[nodiscard]] neuron_values heapr(const Layer& layer, const calibration& sums, fisher form = fisher::averaged,
                                  mean_over mean = mean_over::all_tokens) {
  require(sums.gradient_tokens() != 0 || sums.tokens() == 0,
          "heapr needs gradients, and this calibration has none: call calibration.add_gradient(ctx, layer, tape, dy)");
  return detail::neuron_importance(
      layer, sums, mean, [&](const expert_sums& expert, const neuron_sums& neuron, double) {
        if (expert.gradient_rows == 0)
          return 0.0;
        const auto n = static_cast<double>(expert.gradient_rows);
        return form == fisher::averaged ? 0.5 * (neuron.gradient_squared / n) * (neuron.gradient / n)
                                        : 0.5 * neuron.effect / n;
      });
}

/// The sum of the importance of an expert's neurons: [N].
[[nodiscard]] inline std::vector<double> sum_over_neurons(const neuron_values& importance) {
  std::vector<double> result;
  for (const std::vector<double>& values : importance) {
    double sum = 0;
    for (const double value : values)
      sum += value;
    result.push_back(sum);
  }
  return result;
}

} // namespace hmoe::compress

#include <hmoe/core/macros_on.hpp>
