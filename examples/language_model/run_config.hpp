// SPDX-License-Identifier: MIT
#pragma once

#include "model_shape.hpp"
#include "variant.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>

namespace language_model {

/// How a model is trained; the defaults are those found to work for model S.
struct recipe {
  std::size_t batch = 8; ///< windows of `context` tokens per step
  double learning_rate = 4e-3;
  std::size_t warmup_steps = 100;
  double final_rate = 0.1; ///< of the learning rate, reached when the budget is spent
  double beta1 = 0.9;
  double beta2 = 0.99;
  double weight_decay = 1e-5;
  double gradient_norm = 1.0;
  std::size_t evaluation_tokens = 98'304;
};

/// Everything that determines the numbers of a run.
struct run_config {
  model_shape shape;
  recipe how;
  variant what;
  std::uint64_t seed = 1;
  double budget_flops = 3e12;
  std::uint64_t corpus_fingerprint = 0;
};

/// Throws hmoe::error for sizes, a recipe or a budget that nothing can be trained with.
void validate(const run_config& config);

/// Bytes that training takes at least: weights with gradients and moments, and what a batch leaves in the layers.
double least_memory(const run_config& config);
/// Throws hmoe::error with the options to change where that is more than this machine has.
void require_memory(const run_config& config);

/// What files of a run carry, and what must agree for a run to be resumed. Titles and the like are left out.
nlohmann::json to_json(const run_config& config);
/// Throws hmoe::error for what to_json() does not write.
run_config run_config_from_json(const nlohmann::json& json);

} // namespace language_model
