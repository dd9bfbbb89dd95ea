// SPDX-License-Identifier: MIT
#include "pruning_comparison.hpp"

#include "batches.hpp"
#include "bytes.hpp"
#include "comparison.hpp"
#include "evaluation.hpp"
#include "feed_forwards.hpp"
#include "interrupt.hpp"
#include "machine.hpp"
#include "pruning.hpp"
#include "run.hpp"
#include "trainer.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <sstream>

namespace language_model {
namespace {

/// One line of the table: a model with some layers, before and after its fine-tuning.
struct pruned_run {
  const run_config& config;
  const corpus& text;
  std::vector<std::size_t> windows; ///< of the held-out text
  std::uint64_t first_step;         ///< of the training text that nothing has seen yet
  std::size_t threads;
};

std::size_t steps_of(std::size_t tokens, const run_config& config) {
  const std::size_t per_step = config.how.batch * config.shape.context;
  return (tokens + per_step - 1) / per_step;
}

void anneal(decoder<float>& model, const pruned_run& run, std::size_t steps, double rate) {
  const recipe& how = run.config.how;
  const hmoe::context ctx{hmoe::backends::simd<>{}, hmoe::executors::openmp(run.threads)};
  const auto parameters = model.parameters();
  hmoe::training::adamw<float> optimizer({.beta1 = how.beta1, .beta2 = how.beta2, .weight_decay = how.weight_decay},
                                         parameters);
  const hmoe::training::warmup_cosine schedule{rate, std::min<std::uint64_t>(how.warmup_steps, steps / 10), 0.0};
  const hmoe::seed seed{run.config.seed};
  for (std::size_t s = 0; s < steps; ++s) {
    const std::uint64_t step = run.first_step + s;
    const batch b = training_batch(run.text.train, how.batch, run.config.shape.context, seed, step);
    for (const auto& p : parameters)
      std::ranges::fill(p.gradient, 0.0F);
    model.accumulate_gradients(b.inputs, b.targets, hmoe::noise_source{seed, step}, false);
    hmoe::training::clip_gradient_norm(parameters, how.gradient_norm);
    optimizer.step(ctx, parameters, schedule(s, static_cast<double>(s) / static_cast<double>(steps)));
  }
}

/// Of the held-out text, the model as a whole: the best of three passes.
double tokens_per_second(decoder<float>& model, const pruned_run& run) {
  const std::size_t count = std::min(run.windows.size(), 16 * model.sequences());
  const std::span<const std::size_t> some(run.windows.data(), count);
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    evaluate(model, run.text, some);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, static_cast<double>(count * run.config.shape.context) / seconds.count());
  }
  return best;
}

/// Forward FLOPs of a token in the experts of all layers, as the held-out tokens were routed.
double expert_flops_per_token(const decoder<float>& model, const evaluation& result) {
  double width = 0;
  for (std::size_t l = 0; l < model.shape().blocks; ++l) {
    const auto widths = model.layer(l).widths();
    const std::size_t routed = model.layer(l).routed();
    width += result.routing[l].per_token(widths.first(routed));
    for (const std::size_t shared : widths.subspan(routed))
      width += static_cast<double>(shared);
  }
  return expert_flops(model.shape(), width) / 3; // that of training: three forward passes
}

nlohmann::json line_of(decoder<float>& model, const pruned_run& run, const pruning_comparison& wanted) {
  nlohmann::json line;
  std::size_t parameters = 0;
  for (const auto& p : model.parameters())
    if (p.expert != hmoe::parameter_info::no_expert)
      parameters += p.value.size();
  auto widths = nlohmann::json::array();
  for (std::size_t l = 0; l < model.shape().blocks; ++l)
    widths.push_back(std::vector<std::size_t>(model.layer(l).widths().begin(), model.layer(l).widths().end()));
  line["bits_per_byte_before"] = evaluate(model, run.text, run.windows).bits_per_byte;
  anneal(model, run, steps_of(wanted.anneal_tokens, run.config), wanted.anneal_rate);
  const evaluation result = evaluate(model, run.text, run.windows);
  const double of_experts = expert_flops_per_token(model, result);
  line["bits_per_byte"] = result.bits_per_byte;
  line["expert_parameters"] = parameters;
  line["expert_bytes"] = parameters * sizeof(float);
  line["expert_flops_per_token"] = of_experts;
  line["flops_per_token"] = base_flops_per_token(model.shape(), model.router_weights()) / 3 + of_experts;
  line["tokens_per_second"] = tokens_per_second(model, run);
  line["widths"] = std::move(widths);
  return line;
}

std::string csv_of(const nlohmann::json& lines) {
  constexpr const char* columns[] = {"model",
                                     "seed",
                                     "cut",
                                     "budget",
                                     "expert_parameters",
                                     "expert_bytes",
                                     "expert_flops_per_token",
                                     "flops_per_token",
                                     "bits_per_byte_before",
                                     "bits_per_byte",
                                     "tokens_per_second"};
  std::ostringstream out;
  for (const char* column : columns)
    out << (column == columns[0] ? "" : ",") << column;
  for (const auto& line : lines) {
    out << "\n";
    for (const char* column : columns) {
      const auto& value = line.at(column);
      out << (column == columns[0] ? "" : ",") << (value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
  out << "\n";
  return out.str();
}

} // namespace

void validate(const pruning_comparison& wanted) {
  hmoe::require(!wanted.budgets.empty(), "nothing to compare: give a --budget");
  for (const double budget : wanted.budgets)
    hmoe::require(budget > 0 && budget < 1, "a budget of ", budget,
                  " of the experts' parameters: --budget must be above 0 and below 1");
  hmoe::require(wanted.anneal_rate > 0 && wanted.anneal_rate <= 1, "a learning rate of ", wanted.anneal_rate,
                ": --anneal-rate must be above 0 and at most 1");
  hmoe::require(wanted.calibration_tokens >= 1, "0 tokens of calibration: --calibration-tokens must be at least 1");
}

nlohmann::json compare_cuts(const pruning_comparison& wanted, const corpus& text) {
  validate(wanted);
  std::vector<checkpoint> saved;
  std::vector<run_config> configs;
  for (const auto& path : wanted.models) {
    saved.push_back(load_checkpoint(path));
    run_config config = run_config_from_json(saved.back().config);
    validate(config, text);
    hmoe::require(config.corpus_fingerprint == text.fingerprint, path.string(),
                  " was trained on another text: give that one as --text");
    hmoe::require(configs.empty() || config.shape == configs.front().shape, path.string(), " has another shape than ",
                  wanted.models.front().string(), ": compare models of one shape");
    hmoe::require(!config.what.dense(), path.string(), " has one expert per layer: there is nothing to rank or drop");
    configs.push_back(std::move(config));
  }
  hmoe::require(!configs.empty(), "nothing to prune: give a --model");
  nlohmann::json all{{"format", "hmoe-pruning-1"},
                     {"machine", describe_machine(wanted.threads)},
                     {"command", wanted.command},
                     {"corpus", describe_corpus(text, configs.front())},
                     {"model", describe_model(configs.front())},
                     {"calibration_tokens", wanted.calibration_tokens},
                     {"anneal", {{"tokens", wanted.anneal_tokens}, {"learning_rate", wanted.anneal_rate}}},
                     {"interrupted", false},
                     {"lines", nlohmann::json::array()}};
  for (std::size_t m = 0; m < configs.size(); ++m) {
    const run_config& config = configs[m];
    decoder<float> model(config.shape,
                         make_feed_forwards<float>(config.what, config.shape, config.how.batch, wanted.threads),
                         config.how.batch, wanted.threads);
    load_model(saved[m], model);
    const std::uint64_t trained = saved[m].state.value("steps", std::uint64_t{0});
    std::vector<batch> batches;
    for (std::size_t i = 0; i < steps_of(wanted.calibration_tokens, config); ++i)
      batches.push_back(
          training_batch(text.train, config.how.batch, config.shape.context, hmoe::seed{config.seed}, trained + i));
    const auto sums = calibrate(model, batches);
    const pruned_run run{
        config, text,
        evaluation_windows(text.heldout.size(), config.shape.context, config.how.batch, config.how.evaluation_tokens),
        trained + batches.size(), wanted.threads};
    const auto add = [&](cut how, double budget) {
      decoder<float> pruned(config.shape, pruned_layers(model, sums, how, budget, wanted.threads), config.how.batch,
                            wanted.threads);
      copy_all_but_layers(model, pruned);
      nlohmann::json line = line_of(pruned, run, wanted);
      line.update({{"model", config.what.name}, {"seed", config.seed}, {"cut", name_of(how)}, {"budget", budget}});
      std::cerr << config.what.name << " seed " << config.seed << ", " << name_of(how) << " to " << budget << ": "
                << line.at("bits_per_byte_before").get<double>() << ", fine-tuned "
                << line.at("bits_per_byte").get<double>() << " bits per byte\n";
      all["lines"].push_back(std::move(line));
      write_file(wanted.folder / "pruning.json", dump(all));
      write_file(wanted.folder / "pruning.csv", csv_of(all["lines"]));
    };
    add(cut::nothing, 1.0);
    for (const double budget : wanted.budgets)
      for (const cut how : all_cuts) {
        if (interrupt::requested()) {
          all["interrupted"] = true;
          return all;
        }
        add(how, budget);
      }
  }
  return all;
}

} // namespace language_model
