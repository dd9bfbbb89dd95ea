// SPDX-License-Identifier: MIT
#include "run_config.hpp"

#include <hmoe/core/error.hpp>

#include "bytes.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <sstream>
#include <string>

namespace language_model {

void validate(const run_config& c) {
  validate(c.shape);
  const recipe& how = c.how;
  const auto refuse = [](const char* option, double value, const char* why) {
    std::ostringstream text;
    text << option << " " << value << why;
    throw hmoe::error(text.str());
  };
  if (!(c.budget_flops > 0 && c.budget_flops <= 1e21))
    refuse("a budget of", c.budget_flops, " FLOPs: --budget must be above 0 and at most 1e21");
  hmoe::require(how.batch >= 1, "a batch of 0 windows: --batch must be at least 1");
  if (!(how.learning_rate > 0 && how.learning_rate <= 1))
    refuse("a learning rate of", how.learning_rate,
           ": --learning-rate must be above 0 and at most 1; 1e-4 to 1e-2 is usual");
  if (!(how.final_rate >= 0 && how.final_rate <= 1))
    refuse("a final rate of", how.final_rate, " of the peak: --final-rate must be in [0, 1]");
  if (!(how.beta1 >= 0 && how.beta1 < 1))
    refuse("a beta1 of", how.beta1, ": --beta1 must be in [0, 1)");
  if (!(how.beta2 >= 0 && how.beta2 < 1))
    refuse("a beta2 of", how.beta2, ": --beta2 must be in [0, 1)");
  if (!(how.weight_decay >= 0 && how.weight_decay * how.learning_rate < 1))
    refuse("a weight decay of", how.weight_decay,
           ": --weight-decay must not be below 0, and below 1 / --learning-rate, where it takes all of a weight");
  if (!(how.gradient_norm > 0 && std::isfinite(how.gradient_norm)))
    refuse("a gradient norm of", how.gradient_norm, ": --gradient-norm must be finite and above 0");
}

namespace {

/// A part of the memory that training takes, and the options that make it smaller.
struct memory_part {
  const char* name;
  const char* remedy;
  double bytes;
};

std::array<memory_part, 5> memory_parts(const run_config& c) {
  const auto number = [](std::size_t n) { return static_cast<double>(n); };
  const double d = number(c.shape.d_model), blocks = number(c.shape.blocks), heads = number(c.shape.heads);
  const double context = number(c.shape.context), vocabulary = number(c.shape.vocabulary);
  const double windows = number(c.how.batch), tokens = windows * context;
  const double experts = number(c.what.widths.size() + c.what.shared.widths.size());
  double width = 0;
  for (const std::size_t each : c.what.all_widths())
    width += number(each);
  constexpr double number_bytes = 4, kept = 4; // of each weight: value, gradient, two moments
  return {{
      {"the experts", "number of experts or total in the variant, a smaller --blocks or --d-model",
       number_bytes * kept * blocks * d * (3 * width + experts)},
      {"attention", "--d-model or --blocks", number_bytes * kept * blocks * 4 * d * d},
      {"embedding and head", "--vocabulary or --d-model", number_bytes * kept * 2 * vocabulary * d},
      {"the batch", "--batch, --context, --d-model or --blocks",
       number_bytes * tokens * (blocks * (12 * d + 2 * experts) + vocabulary)},
      {"the attention matrices of the batch", "--context, --batch or --heads",
       number_bytes * blocks * windows * (heads + 1) * context * context},
  }};
}

} // namespace

double least_memory(const run_config& config) {
  double sum = 0;
  for (const auto& part : memory_parts(config))
    sum += part.bytes;
  return sum;
}

void require_memory(const run_config& config) {
  const double there = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
  const double needed = least_memory(config);
  if (there <= 0 || needed <= there)
    return;
  const auto parts = memory_parts(config);
  const auto& largest = *std::ranges::max_element(parts, {}, &memory_part::bytes);
  std::ostringstream text;
  text.precision(3);
  text << "training " << config.what.name << " takes at least " << needed / 1e9
       << " GB of memory, and this machine has " << there / 1e9 << " GB. Most of it, " << largest.bytes / 1e9
       << " GB, is for " << largest.name << ": give a smaller " << largest.remedy;
  throw hmoe::error(text.str());
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

run_config run_config_from_json(const nlohmann::json& json) try {
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
} catch (const nlohmann::json::exception&) {
  throw hmoe::error("this is not the description of a run that this program writes");
}

} // namespace language_model
