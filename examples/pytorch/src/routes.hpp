// SPDX-License-Identifier: MIT
// Routers whose parts are chosen at run time: what the module and the kernels of every instruction set share.
#pragma once

#include "passes.hpp"

#include <cstddef>
#include <cstdint>

namespace hmoe::python {

enum class score_function { softmax, sigmoid, sqrt_softplus, relu };
enum class selection { top_k, top_p, threshold };
enum class weighting { renormalized, raw, softmax_over_selected, sigmoid_of_logit, equal_weights };

/// A router on a weight [experts × d_model] where it is: routing::router of these parts.
struct router_memory {
  std::size_t d_model = 0, experts = 0;
  const void* weight = nullptr;
  score_function score = score_function::softmax;
  selection select = selection::top_k;
  double parameter = 1; ///< k, p or the threshold
  weighting weigh = weighting::renormalized;
};

/// The most experts that a token can get.
[[nodiscard]] inline std::size_t choices_of(const router_memory& router) noexcept {
  return router.select == selection::top_k ? static_cast<std::size_t>(router.parameter) : router.experts;
}

/// What a router made of a batch. Choices of a token ascend by id; behind them ids are −1 and weights 0.
struct routed {
  std::size_t tokens = 0, choices = 0;
  void *logits = nullptr, *probabilities = nullptr; ///< [tokens × experts]
  std::int64_t* ids = nullptr;                      ///< [tokens × choices]
  void* weights = nullptr;                          ///< [tokens × choices]
  const std::uint8_t* valid = nullptr;              ///< [tokens] 0 for padding, or null
};

/// Writes `out`.
struct route_pass {
  const router_memory* router = nullptr;
  const void* x = nullptr; ///< [tokens × d_model]
  routed out;
  const workers* threads = nullptr;
  workspace* scratch = nullptr;
};

/// dx and d_weight are written, unless they are null. Gradients of outputs that are null are 0.
struct route_backward_pass {
  const router_memory* router = nullptr;
  const void* x = nullptr;
  routed out;
  const void *d_logits = nullptr, *d_probabilities = nullptr, *d_weights = nullptr;
  void *dx = nullptr, *d_weight = nullptr;
  const workers* threads = nullptr;
  workspace* scratch = nullptr;
};

} // namespace hmoe::python

HMOE_ISA_FUNCTION(route_float, void(const hmoe::python::route_pass& pass));
HMOE_ISA_FUNCTION(route_double, void(const hmoe::python::route_pass& pass));
HMOE_ISA_FUNCTION(route_backward_float, void(const hmoe::python::route_backward_pass& pass));
HMOE_ISA_FUNCTION(route_backward_double, void(const hmoe::python::route_backward_pass& pass));
