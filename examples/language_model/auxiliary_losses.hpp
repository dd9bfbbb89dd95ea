// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/hmoe.hpp>

#include "policies.hpp"
#include "variant.hpp"

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace language_model {

/// The losses of one layer, whatever their types.
template <class T> class auxiliary_losses {
public:
  /// `sparsity` adapts the coefficient of adaptive-l1, for all layers.
  auxiliary_losses(const variant& v, const std::shared_ptr<hmoe::losses::sparsity_controller>& sparsity) {
    // Not in the order of the command line: floating-point sums depend on it, results should not.
    for (const auto& kind : loss_kinds())
      if (const double coefficient = v.coefficient(kind.name); coefficient != 0.0)
        terms_.push_back(make(kind.name, coefficient, v.widths.size(), sparsity));
  }

  /// Adds up the losses with their coefficients, and their gradients in the trace's sinks.
  double evaluate(hmoe::routing_record<T>& record) const {
    double sum = 0.0;
    for (const auto& evaluate_one : terms_)
      sum += evaluate_one(record);
    return sum;
  }

private:
  using term = std::function<double(hmoe::routing_record<T>&)>;

  static term plain(const auto& loss) {
    return [loss](hmoe::routing_record<T>& record) { return loss.coefficient * loss.evaluate(record); };
  }

  static term make(const std::string& name, double c, std::size_t experts,
                   const std::shared_ptr<hmoe::losses::sparsity_controller>& sparsity) {
    namespace losses = hmoe::losses;
    const std::map<std::string, std::function<term()>> table{
        {"load-balance", [=] { return plain(losses::load_balance{.coefficient = c}); }},
        {"parameter-penalty", [=] { return plain(losses::parameter_penalty{.coefficient = c}); }},
        {"router-entropy", [=] { return plain(losses::router_entropy{.coefficient = c}); }},
        {"z", [=] { return plain(losses::z{.coefficient = c}); }},
        {"first-choice-load-balance",
         [=] { return plain(losses::load_balance{.coefficient = c, .counts = losses::balance_counts::first_choice}); }},
        {"sequence-balance", [=] { return plain(losses::sequence_balance{.coefficient = c}); }},
        {"global-load-balance",
         [=]() -> term {
           return [c, load = losses::load_accumulator(experts)](hmoe::routing_record<T>& record) mutable {
             load.clear();
             load.add(record);
             return c * losses::global_load_balance{.coefficient = c, .load = &load}.evaluate(record);
           };
         }},
        {"importance", [=] { return plain(losses::importance{.coefficient = c}); }},
        {"load", [=] { return plain(losses::load{.coefficient = c}); }},
        {"noisy-load", [=] { return plain(losses::noisy_load{.coefficient = c}); }},
        {"group-balance", [=] { return plain(losses::group_balance{.coefficient = c}); }},
        {"intra-group-balance", [=] { return plain(losses::intra_group_balance{.coefficient = c}); }},
        {"zero-cost-balance", [=] { return plain(losses::zero_cost_balance{.coefficient = c}); }},
        {"compute-cost", [=] { return plain(losses::compute_cost{.coefficient = c}); }},
        {"adaptive-l1",
         [=]() -> term {
           return [sparsity](hmoe::routing_record<T>& record) {
             const losses::adaptive_l1 loss = sparsity->loss();
             sparsity->add(record.trace);
             return loss.coefficient * loss.evaluate(record);
           };
         }},
    };
    return table.at(name)();
  }

  std::vector<term> terms_;
};

} // namespace language_model
