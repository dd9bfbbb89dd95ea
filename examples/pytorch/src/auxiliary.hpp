// SPDX-License-Identifier: MIT
// Auxiliary losses by name, on what a router made of a batch.
#pragma once

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/losses/importance.hpp>
#include <hmoe/losses/load_balance.hpp>
#include <hmoe/losses/parameter_penalty.hpp>
#include <hmoe/losses/router_entropy.hpp>
#include <hmoe/losses/z.hpp>

#include "kernels/batch_rows.hpp"
#include "routes.hpp"

#include <algorithm>
#include <cstddef>
#include <memory_resource>
#include <string>
#include <utility>
#include <vector>

namespace hmoe::python {

/// The value of a loss without a coefficient; its gradients are written to d_logits and d_probabilities [tokens × N].
/// Ids that are no expert are skipped, an expert that a token names twice counts once. hmoe::error for another name.
template <class T>
[[nodiscard]] double evaluate_loss(const std::string& name, const routed& in, const std::vector<std::size_t>& widths,
                                   T* d_logits, T* d_probabilities) {
  const std::size_t experts = widths.size(), values = in.tokens * experts;
  router_trace<T> trace;
  trace.resize(in.tokens, experts, 0, true);
  routing_inputs<T> inputs;
  if (in.valid != nullptr)
    inputs.valid = {in.valid, in.tokens};
  trace.set_inputs(inputs);
  std::copy_n(static_cast<const T*>(in.logits), values, trace.logits().data());
  std::copy_n(static_cast<const T*>(in.probabilities), values, trace.probabilities().data());
  const batch chosen{in.tokens, in.choices, in.ids, in.weights, nullptr};
  assignment<T> assigned = batch_rows<T>(chosen, experts, std::pmr::get_default_resource()).assigned();
  assigned.set_padding(in.tokens - trace.valid_tokens());
  for (const index_t id : std::as_const(assigned).experts())
    ++trace.tokens_per_expert()[id];
  routed_batch<T> routing{trace, assigned, vector_view<const std::size_t>(widths.data(), experts)};
  double value = 0;
  if (name == losses::load_balance::name)
    value = losses::load_balance{.coefficient = 1}.evaluate(routing);
  else if (name == losses::parameter_penalty::name)
    value = losses::parameter_penalty{.coefficient = 1}.evaluate(routing);
  else if (name == losses::router_entropy::name)
    value = losses::router_entropy{.coefficient = 1}.evaluate(routing);
  else if (name == losses::z::name)
    value = losses::z{.coefficient = 1}.evaluate(routing);
  else if (name == losses::importance::name)
    value = losses::importance{.coefficient = 1}.evaluate(routing);
  else
    fail("no auxiliary loss named '" + name +
         "': known are load_balance, parameter_penalty, router_entropy, z and importance");
  std::copy_n(std::as_const(trace).d_logits().data(), values, d_logits);
  std::copy_n(std::as_const(trace).d_probabilities().data(), values, d_probabilities);
  return value;
}

} // namespace hmoe::python
