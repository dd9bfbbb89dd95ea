// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/hmoe.hpp>

#include "policies.hpp"
#include "variant.hpp"

#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// The losses of one layer, whatever their types.
template <class T> class auxiliary_losses {
public:
  auxiliary_losses() = default; ///< none
  /// `sparsity` adapts the coefficient of adaptive-l1, for all layers.
  auxiliary_losses(const variant& v, const std::shared_ptr<hmoe::losses::sparsity_controller>& sparsity) {
    // Not in the order of the command line: floating-point sums depend on it, results should not.
    for (const auto& kind : loss_kinds())
      if (const loss_choice* choice = v.find_loss(kind.name); choice != nullptr && choice->coefficient != 0.0)
        terms_.push_back(make(*choice, v.widths.size(), sparsity));
  }

  /// Adds up the losses with their coefficients, and their gradients in the trace's sinks.
  double evaluate(hmoe::routed_batch<T>& batch) const {
    double sum = 0.0;
    for (const auto& evaluate_one : terms_)
      sum += evaluate_one(batch);
    return sum;
  }

private:
  using term = std::function<double(hmoe::routed_batch<T>&)>;

  static term plain(const auto& loss) {
    return [loss](hmoe::routed_batch<T>& batch) { return loss.coefficient * value_of(loss, batch); };
  }

  /// Routers without probabilities (gpt-oss, llama4) are judged by the softmax of their logits.
  static double value_of(const auto& loss, hmoe::routed_batch<T>& batch) {
    return batch.trace.has_probabilities() ? loss.evaluate(batch) : hmoe::losses::of_softmax{loss}.evaluate(batch);
  }

  /// The value that an option's word stands for, the first without one.
  template <class Value>
  static Value pick(const std::string& option, std::initializer_list<std::pair<const char*, Value>> values) {
    for (const auto& [word, value] : values)
      if (option == word)
        return value;
    return values.begin()->second;
  }

  static term make(const loss_choice& choice, std::size_t experts,
                   const std::shared_ptr<hmoe::losses::sparsity_controller>& sparsity) {
    namespace losses = hmoe::losses;
    using losses::balance_normalization, losses::gate_values, losses::width_unit;
    const double c = choice.coefficient;
    // The options of policies.cpp.
    const auto to_k = balance_normalization::to_k, to_one = balance_normalization::to_one;
    const auto normalization = pick(choice.option, {std::pair{"to-k", to_k}, {"to-one", to_one}});
    const auto of_sequence = pick(choice.option, {std::pair{"to-one", to_one}, {"to-k", to_k}});
    const auto unit =
        pick(choice.option, {std::pair{"mean", width_unit::mean}, {"raw", width_unit::raw}, {"max", width_unit::max}});
    const auto gates = pick(choice.option, {std::pair{"renormalized", gate_values::renormalized},
                                            {"selected", gate_values::selected},
                                            {"probabilities", gate_values::probabilities}});
    const std::map<std::string, std::function<term()>> table{
        {"load-balance", [=] { return plain(losses::load_balance{.coefficient = c, .normalization = normalization}); }},
        {"parameter-penalty", [=] { return plain(losses::parameter_penalty{.coefficient = c, .unit = unit}); }},
        {"router-entropy", [=] { return plain(losses::router_entropy{.coefficient = c}); }},
        {"z", [=] { return plain(losses::z{.coefficient = c}); }},
        {"first-choice-load-balance",
         [=] { return plain(losses::load_balance{.coefficient = c, .counts = losses::balance_counts::first_choice}); }},
        {"sequence-balance",
         [=] { return plain(losses::sequence_balance{.coefficient = c, .normalization = of_sequence}); }},
        {"global-load-balance",
         [=]() -> term {
           return [c, normalization, load = losses::load_accumulator(experts)](hmoe::routed_batch<T>& batch) mutable {
             load.clear();
             load.add(batch);
             return c *
                    value_of(
                        losses::global_load_balance{.coefficient = c, .load = &load, .normalization = normalization},
                        batch);
           };
         }},
        {"importance", [=] { return plain(losses::importance{.coefficient = c, .gates = gates}); }},
        {"load", [=] { return plain(losses::smooth_load{.coefficient = c}); }},
        {"noisy-load", [=] { return plain(losses::noisy_load{.coefficient = c}); }},
        {"group-balance", [=] { return plain(losses::group_balance{.coefficient = c}); }},
        {"intra-group-balance", [=] { return plain(losses::intra_group_balance{.coefficient = c, .gates = gates}); }},
        {"zero-cost-balance", [=] { return plain(losses::zero_cost_balance{.coefficient = c}); }},
        {"compute-cost", [=] { return plain(losses::compute_cost{.coefficient = c}); }},
        {"adaptive-l1",
         [=]() -> term {
           return [sparsity](hmoe::routed_batch<T>& batch) {
             const losses::adaptive_l1 loss = sparsity->loss();
             sparsity->add(batch.trace);
             return loss.coefficient * value_of(loss, batch);
           };
         }},
    };
    return table.at(choice.name)();
  }

  std::vector<term> terms_;
};

} // namespace language_model
