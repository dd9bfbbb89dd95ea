// SPDX-License-Identifier: MIT
#include "run_config.hpp"

#include <hmoe/core/error.hpp>

#include "bytes.hpp"

#include <charconv>
#include <cmath>
#include <string>

namespace language_model {

void validate(const run_config& c) {
  validate(c.shape);
  const recipe& how = c.how;
  hmoe::require(std::isfinite(c.budget_flops) && c.budget_flops > 0, "a budget of ", c.budget_flops,
                " FLOPs: it must be finite and above 0");
  hmoe::require(how.batch >= 1, "a batch of 0 windows: there must be at least 1");
  hmoe::require(std::isfinite(how.learning_rate) && how.learning_rate > 0, "a learning rate of ", how.learning_rate,
                ": it must be finite and above 0");
  hmoe::require(how.final_rate >= 0 && how.final_rate <= 1, "a final rate of ", how.final_rate,
                " of the peak: it must be in [0, 1]");
  hmoe::require(std::isfinite(how.weight_decay) && how.weight_decay >= 0, "a weight decay of ", how.weight_decay,
                ": it must be finite and not below 0");
}

nlohmann::json to_json(const run_config& c) {
  nlohmann::json layer = to_json(c.what);
  for (const char* key : {"title", "control_of"})
    layer.erase(key);
  return {{"model",
           {{"d_model", c.shape.d_model},
            {"blocks", c.shape.blocks},
            {"heads", c.shape.heads},
            {"context", c.shape.context},
            {"vocabulary", c.shape.vocabulary}}},
          {"recipe",
           {{"batch", c.how.batch},
            {"learning_rate", c.how.learning_rate},
            {"warmup_steps", c.how.warmup_steps},
            {"final_rate", c.how.final_rate},
            {"beta1", c.how.beta1},
            {"beta2", c.how.beta2},
            {"weight_decay", c.how.weight_decay},
            {"gradient_norm", c.how.gradient_norm},
            {"evaluation_tokens", c.how.evaluation_tokens}}},
          {"variant", layer},
          {"seed", c.seed},
          {"budget_flops", c.budget_flops},
          {"corpus", to_hex(c.corpus_fingerprint)}};
}

run_config run_config_from_json(const nlohmann::json& json) {
  run_config c;
  const auto& model = json.at("model");
  c.shape = {model.at("d_model"), model.at("blocks"), model.at("heads"), model.at("context"), model.at("vocabulary")};
  const auto& how = json.at("recipe");
  c.how = {how.at("batch"),        how.at("learning_rate"), how.at("warmup_steps"),
           how.at("final_rate"),   how.at("beta1"),         how.at("beta2"),
           how.at("weight_decay"), how.at("gradient_norm"), how.at("evaluation_tokens")};
  c.what = variant_from_json(json.at("variant"));
  c.seed = json.at("seed");
  c.budget_flops = json.at("budget_flops");
  const auto corpus = json.at("corpus").get<std::string>();
  std::from_chars(corpus.data(), corpus.data() + corpus.size(), c.corpus_fingerprint, 16);
  return c;
}

} // namespace language_model
