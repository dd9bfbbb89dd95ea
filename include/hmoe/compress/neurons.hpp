// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/experts/bank.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/ffn_weights.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe::compress {

namespace detail {
template <class T, std::size_t Lanes>
std::integral_constant<std::size_t, Lanes> lanes_of(const experts::ffn_weights<T, Lanes>&);

/// The bank of the same kind with other weights.
template <class Bank, class Weights>
  requires requires(const Bank& bank, Weights weights) { Bank(std::move(weights), bank.gate_function()); }
[[nodiscard]] Bank with_weights(const Bank& bank, Weights weights) {
  return Bank(std::move(weights), bank.gate_function());
}
template <class Bank, class Weights>
  requires(std::constructible_from<Bank, Weights> && requires { typename Bank::activation_type; })
[[nodiscard]] Bank with_weights(const Bank&, Weights weights) {
  return Bank(std::move(weights));
}
} // namespace detail

/// A bank of feed-forward experts, which can be taken apart into neurons: neuron i of expert e is row i of each lane
/// (with its bias) and column i of the output matrix, and adds down[:, i] · a_i(x) to the expert's output. Of the
/// values saved for a row the last h are the activated hidden values a. Models: glu_bank, gpt_oss_glu_bank, mlp_bank.
template <class Bank>
concept neuron_bank = expert_bank<Bank> && requires(const Bank& bank) {
  detail::with_weights(
      bank, experts::ffn_weights<typename Bank::value_type, decltype(detail::lanes_of(bank.weights()))::value>(
                bank.weights()));
};

/// A value for each neuron: [expert id][neuron]; experts without neurons have none.
using neuron_values = std::vector<std::vector<double>>;
/// Some neurons of each expert of a bank, by local id, in the order in which they shall stand.
using neuron_choice = std::vector<std::vector<std::size_t>>;

namespace detail {
template <class T>
void copy_row(vector_view<const T> from, vector_view<T> to, const std::vector<std::size_t>& columns) {
  for (std::size_t i = 0; i < columns.size(); ++i)
    to[i] = from[columns[i]];
}

/// Weights with the chosen neurons alone, in memory of their own.
template <class T, std::size_t Lanes>
[[nodiscard]] experts::ffn_weights<T, Lanes> take_neurons(const experts::ffn_weights<T, Lanes>& from,
                                                          const neuron_choice& chosen) {
  std::vector<std::size_t> widths;
  for (const auto& neurons : chosen)
    widths.push_back(neurons.size());
  experts::ffn_weights<T, Lanes> to(from.d_model(), widths,
                                    from.has_biases() ? experts::biases::all : experts::biases::none);
  for (std::size_t e = 0; e < to.size(); ++e) {
    for (std::size_t l = 0; l < Lanes; ++l) {
      const matrix_view<const T> lane = from.lane(e, l);
      for (std::size_t i = 0; i < chosen[e].size(); ++i)
        std::ranges::copy(lane.row(chosen[e][i]), to.lane(e, l).row(i).begin());
      if (from.has_biases())
        detail::copy_row<T>(from.lane_bias(e, l).row(0), to.lane_bias(e, l).row(0), chosen[e]);
    }
    for (std::size_t r = 0; r < from.d_model(); ++r)
      detail::copy_row<T>(from.output(e).row(r), to.output(e).row(r), chosen[e]);
    if (from.has_biases())
      std::ranges::copy(from.output_bias(e).row(0), to.output_bias(e).row(0).begin());
  }
  return to;
}

/// Experts `places` of a bank, on its memory.
template <class Bank> [[nodiscard]] Bank some_experts(const Bank& bank, const std::vector<std::size_t>& places) {
  using T = typename Bank::value_type;
  constexpr std::size_t lanes = decltype(detail::lanes_of(bank.weights()))::value;
  std::vector<experts::ffn_tensors<const T, lanes>> views;
  for (const std::size_t i : places) {
    auto& expert = views.emplace_back();
    for (std::size_t l = 0; l < lanes; ++l) {
      expert.lanes[l] = bank.weights().lane(i, l);
      expert.lane_biases[l] = bank.weights().lane_bias(i, l);
    }
    expert.output = bank.weights().output(i);
    expert.output_bias = bank.weights().output_bias(i);
  }
  return detail::with_weights(bank, experts::ffn_weights<T, lanes>(views));
}

/// The set with f(bank, ids of its experts) in place of each bank that has neurons, and copies of the others.
template <class... Banks, class F>
[[nodiscard]] expert_set<Banks...> with_neuron_banks(const expert_set<Banks...>& set, const F& f) {
  return [&]<std::size_t... B>(std::index_sequence<B...>) {
    const auto changed = [&](const auto& bank, const std::vector<std::size_t>& ids) {
      if constexpr (neuron_bank<std::remove_cvref_t<decltype(bank)>>)
        return f(bank, ids);
      else
        return bank;
    };
    return expert_set<Banks...>(set.ids(), changed(set.template bank<B>(), set.ids().of_bank[B])...);
  }(std::index_sequence_for<Banks...>{});
}
} // namespace detail

/// The set with the chosen neurons alone, [expert id][neuron], in the order given. Experts without neurons are copied.
/// hmoe::error for a choice that does not fit the set.
template <class... Banks>
[[nodiscard]] expert_set<Banks...> take_neurons(const expert_set<Banks...>& set, const neuron_choice& chosen) {
  require(chosen.size() == set.size(), "neurons of ", chosen.size(), " experts were chosen, the set has ", set.size());
  return detail::with_neuron_banks(set, [&](const auto& bank, const std::vector<std::size_t>& ids) {
    neuron_choice local;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      for (const std::size_t neuron : chosen[ids[i]])
        require(neuron < bank.width(i), "neuron ", neuron, " of expert ", ids[i], " was chosen, which has ",
                bank.width(i));
      local.push_back(chosen[ids[i]]);
    }
    return detail::with_weights(bank, detail::take_neurons(bank.weights(), local));
  });
}

} // namespace hmoe::compress

#include <hmoe/core/macros_on.hpp>
