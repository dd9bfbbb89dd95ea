// SPDX-License-Identifier: MIT
#include "trainer.hpp"

#include "analysis.hpp"
#include "batches.hpp"
#include "bytes.hpp"
#include "errors.hpp"
#include "feed_forwards.hpp"
#include "generation.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <span>
#include <sstream>
#include <string>
#include <utility>

namespace language_model {
namespace {

constexpr std::size_t history_points = 100;
/// Every so many points of the history a part of the held-out text is evaluated as well.
constexpr std::size_t points_per_evaluation = 5;
constexpr std::size_t evaluation_stride = 8;

double mean(std::span<const double> values) {
  return std::reduce(values.begin(), values.end()) / static_cast<double>(values.size());
}

nlohmann::json to_json(const routing_statistics& s) {
  return {{"tokens", s.front().tokens},
          {"activations", per_layer(s, [](const auto& load) { return load.tokens_per_expert; })}};
}

routing_statistics statistics_from_json(const nlohmann::json& json) {
  routing_statistics s;
  for (const auto& counts : json.at("activations").get<std::vector<std::vector<std::uint64_t>>>()) {
    auto& load = s.emplace_back();
    load.tokens_per_expert = counts;
    load.tokens = json.at("tokens");
  }
  return s;
}

/// All parameters that a token passes through, given its activated width in each layer.
double activated_parameters(const run_config& c, std::size_t router_weights, std::span<const double> width_per_layer) {
  double sum = static_cast<double>(parameters_without_experts(c.shape) + router_weights);
  for (const double width : width_per_layer)
    sum += expert_parameters(c.shape, width);
  return sum;
}

std::vector<double> shares(const hmoe::statistics::expert_load& load) { return load.shares(); }

checkpoint::tensor named(const std::string& name, std::span<const float> values) {
  return {name, {values.begin(), values.end()}};
}

} // namespace

void load_model(const checkpoint& saved, decoder<float>& model) {
  for (const auto& p : model.parameters())
    std::ranges::copy(saved.find(p.name, p.value.size()), p.value.begin());
  const std::size_t blocks = model.shape().blocks;
  std::vector<std::vector<double>> states(blocks);
  try {
    states = saved.state.value("layers", states);
  } catch (const nlohmann::json::exception&) {
    throw hmoe::error("the checkpoint's states of the layers are not what this program writes");
  }
  hmoe::require(states.size() == blocks, "the checkpoint has states of ", states.size(), " layers where ", blocks,
                " are expected");
  for (std::size_t l = 0; l < blocks; ++l)
    model.layer(l).restore(states[l]);
}

decoder<float> make_generator(const run_config& c) {
  return {c.shape, make_feed_forwards<float>(c.what, c.shape, 1, 1), 1, 1};
}

void validate(const run_config& config, const corpus& text) {
  validate(config);
  hmoe::require(text.train.size() > config.shape.context, "the training text has ", text.train.size(),
                " tokens, which is not more than one window of ", config.shape.context,
                ": give a smaller --context or a longer text");
  (void)evaluation_windows(text.heldout.size(), config.shape.context, config.how.batch, config.how.evaluation_tokens);
  hmoe::require(text.pieces.size() == config.shape.vocabulary, "the tokeniser has ", text.pieces.size(),
                " pieces where the model expects ", config.shape.vocabulary);
  require_memory(config);
}

namespace {

/// The windows of each process in a batch.
std::size_t part_of_batch(const run_config& config, const process_group* group) {
  const std::size_t processes = group == nullptr ? 1 : group->size();
  hmoe::require(config.how.batch % processes == 0, "a batch of ", config.how.batch, " windows on ", processes,
                " processes: give a --batch that is a multiple of them");
  return config.how.batch / processes;
}

} // namespace

trainer::trainer(const run_config& config, const corpus& text, std::size_t threads, const process_group* group)
    : config_((validate(config, text), config)), text_(text), group_(group),
      model_(config.shape,
             make_feed_forwards<float>(config.what, config.shape, part_of_batch(config, group), threads, group),
             part_of_batch(config, group), threads, group == nullptr ? 1 : group->size()),
      parameters_(model_.parameters()), context_(hmoe::backends::simd<>{}, hmoe::executors::openmp(threads)),
      optimizer_({.beta1 = config.how.beta1, .beta2 = config.how.beta2, .weight_decay = config.how.weight_decay},
                 parameters_),
      evaluation_windows_(evaluation_windows(text.heldout.size(), config.shape.context, config.how.batch,
                                             config.how.evaluation_tokens)),
      totals_(no_statistics(config.shape.blocks, config.what.widths.size())), since_point_(totals_) {
  model_.initialize(hmoe::seed{config.seed});
}

double trainer::flops() const {
  double width = 0.0; // activated by all tokens in all layers
  for (const auto& load : totals_) {
    const auto of_experts = load.times(config_.what.widths);
    width += std::reduce(of_experts.begin(), of_experts.end()) +
             static_cast<double>(load.tokens * config_.what.shared_width());
  }
  return static_cast<double>(tokens()) * base_flops_per_token(config_.shape, model_.router_weights()) +
         expert_flops(config_.shape, width);
}

double trainer::fraction_done() const { return flops() / config_.budget_flops; }

std::vector<double> trainer::widths_of(const routing_statistics& statistics) const {
  return width_per_layer(statistics, config_.what.widths, config_.what.shared_width());
}

bool trainer::finished() const { return flops() >= config_.budget_flops; }

bool trainer::all_finite() const {
  return std::ranges::all_of(parameters_, [](const auto& p) {
    const auto finite = [](float x) { return std::isfinite(x); };
    return std::ranges::all_of(p.value, finite) && std::ranges::all_of(p.gradient, finite);
  });
}

decoder<float>::losses trainer::accumulate_gradients(const batch& b) {
  const auto failed = [&](const std::string& why) {
    return hmoe::error("training " + config_.what.name + " with seed " + std::to_string(config_.seed) +
                       " failed in step " + std::to_string(steps_ + 1) + ": " + why);
  };
  const auto diverged = [&](const std::string& why) {
    std::ostringstream rate;
    rate << config_.how.learning_rate;
    return failed(why + ". Give a smaller --learning-rate (it is " + rate.str() +
                  ") or smaller values of the router and the losses");
  };
  const char* not_finite = "its numbers are no longer finite";
  decoder<float>::losses losses{};
  try {
    losses = model_.accumulate_gradients(b.inputs, b.targets, hmoe::noise_source{hmoe::seed{config_.seed}, steps_});
    // Both refuse what is not finite.
    if (group_ != nullptr)
      group_->finish_gradients(parameters_, config_.how.gradient_norm);
    else
      hmoe::training::clip_gradient_norm(parameters_, config_.how.gradient_norm);
    losses.task = mean_loss(losses.task);
  } catch (const hmoe::error& e) {
    throw diverged(all_finite() ? reason(e) : not_finite);
  }
  if (!std::isfinite(losses.task) || !std::isfinite(losses.auxiliary))
    throw diverged(not_finite);
  return losses;
}

void trainer::step() {
  const auto begin = std::chrono::steady_clock::now();
  const recipe& how = config_.how;
  batch b = training_batch(text_.train, how.batch, config_.shape.context, hmoe::seed{config_.seed}, steps_);
  if (group_ != nullptr)
    b = part_of(b, group_->rank(), group_->size());
  for (const auto& p : parameters_)
    std::ranges::fill(p.gradient, 0.0F);
  const auto losses = accumulate_gradients(b);
  const hmoe::training::warmup_cosine schedule{how.learning_rate, how.warmup_steps, how.final_rate};
  optimizer_.step(context_, parameters_, schedule(steps_, fraction_done()));
  for (std::size_t l = 0; l < config_.shape.blocks; ++l)
    model_.layer(l).after_step();

  routing_statistics routed = no_statistics(config_.shape.blocks, config_.what.widths.size());
  add_batch(routed, model_);
  for (std::size_t l = 0; l < config_.shape.blocks; ++l) {
    if (group_ != nullptr) {
      group_->sum(routed[l].tokens_per_expert);
      group_->sum({&routed[l].tokens, 1});
    }
    totals_[l].merge(routed[l]);
    since_point_[l].merge(routed[l]);
  }
  last_loss_ = losses.task;
  loss_since_point_ += losses.task;
  ++steps_since_point_;
  ++steps_;
  seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();

  // The first point is the first step, whose routing is that of the untrained model.
  const double next_point = static_cast<double>(history_.size()) / history_points;
  if (finished() || fraction_done() >= next_point)
    record_point();
}

void trainer::record_point() {
  const auto widths = widths_of(since_point_);
  nlohmann::json point{{"step", steps_},
                       {"tokens", tokens()},
                       {"flops", flops()},
                       {"train_loss", loss_since_point_ / static_cast<double>(steps_since_point_)},
                       {"bits_per_byte", nullptr},
                       {"activated_width", mean(widths)},
                       {"activated_parameters", activated_parameters(config_, model_.router_weights(), widths)},
                       {"activated_width_per_layer", widths},
                       {"share_per_layer", per_layer(since_point_, shares)}};
  if (finished() || (!history_.empty() && history_.size() % points_per_evaluation == 0)) {
    const bool enough = evaluation_windows_.size() >= evaluation_stride * config_.how.batch;
    point["bits_per_byte"] = evaluate(model_, text_, evaluation_windows_, enough ? evaluation_stride : 1).bits_per_byte;
  }
  history_.push_back(std::move(point));
  since_point_ = no_statistics(config_.shape.blocks, config_.what.widths.size());
  loss_since_point_ = 0.0;
  steps_since_point_ = 0;
}

double trainer::mean_loss(double own) const {
  if (group_ == nullptr)
    return own;
  const std::span<const float> part = model_.token_losses();
  std::vector<float> all(part.size() * group_->size());
  group_->gather(part, all);
  return std::accumulate(all.begin(), all.end(), 0.0) / static_cast<double>(all.size());
}

void trainer::collect_experts() {
  for (std::size_t i = 0; i < parameters_.size() && group_ != nullptr; ++i)
    if (const std::size_t expert = parameters_[i].expert; expert != hmoe::parameter_info::no_expert)
      for (const std::span<float> values :
           {parameters_[i].value, optimizer_.first_moment(i), optimizer_.second_moment(i)})
        group_->collect(expert, values);
}

checkpoint trainer::save() {
  collect_experts();
  checkpoint saved;
  saved.config = language_model::to_json(config_);
  saved.state = {{"steps", steps_},
                 {"seconds", seconds_},
                 {"last_loss", last_loss_},
                 {"totals", to_json(totals_)},
                 {"since_point", to_json(since_point_)},
                 {"loss_since_point", loss_since_point_},
                 {"steps_since_point", steps_since_point_},
                 {"history", history_},
                 {"tokenizer", to_hex(checksum().add(text_.tokenizer).value())}};
  for (std::size_t l = 0; l < config_.shape.blocks; ++l)
    saved.state["layers"].push_back(model_.layer(l).state());
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const std::string& name = parameters_[i].name;
    saved.tensors.push_back(named(name, parameters_[i].value));
    saved.tensors.push_back(named(name + ".first_moment", optimizer_.first_moment(i)));
    saved.tensors.push_back(named(name + ".second_moment", optimizer_.second_moment(i)));
  }
  return saved;
}

void trainer::restore(const checkpoint& saved) {
  require_same_config(saved.config, language_model::to_json(config_), "the checkpoint");
  load_model(saved, model_);
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const auto load = [&](const char* moment, std::span<float> to) {
      std::ranges::copy(saved.find(parameters_[i].name + moment, to.size()), to.begin());
    };
    load(".first_moment", optimizer_.first_moment(i));
    load(".second_moment", optimizer_.second_moment(i));
  }
  try {
    steps_ = saved.state.at("steps");
    seconds_ = saved.state.at("seconds");
    last_loss_ = saved.state.at("last_loss");
    totals_ = statistics_from_json(saved.state.at("totals"));
    since_point_ = statistics_from_json(saved.state.at("since_point"));
    loss_since_point_ = saved.state.at("loss_since_point");
    steps_since_point_ = saved.state.at("steps_since_point");
    history_ = saved.state.at("history");
  } catch (const nlohmann::json::exception&) {
    throw hmoe::error("the checkpoint does not say where its run stands as this program does");
  }
  for (const auto* statistics : {&totals_, &since_point_}) {
    hmoe::require(statistics->size() == config_.shape.blocks, "the checkpoint has counts of ", statistics->size(),
                  " layers where ", config_.shape.blocks, " are expected");
    for (const auto& load : *statistics)
      hmoe::require(load.tokens_per_expert.size() == config_.what.widths.size(), "the checkpoint has counts of ",
                    load.tokens_per_expert.size(), " experts where ", config_.what.widths.size(), " are expected");
  }
  hmoe::require(history_.is_array(), "the checkpoint's history is no list");
  optimizer_.set_steps(steps_);
}

nlohmann::json trainer::results() {
  collect_experts();
  token_record seen(config_.shape.blocks, config_.what.all_widths().size(), config_.shape.vocabulary);
  const evaluation result = evaluate(model_, text_, evaluation_windows_, 1, &seen);
  const auto widths = widths_of(result.routing);
  const auto experts_per_token = [&](const auto& load) {
    return load.experts_per_token() + static_cast<double>(config_.what.shared.widths.size());
  };
  nlohmann::json run = analyse(seen, text_.pieces, config_.what.widths.size());
  run["seed"] = config_.seed;
  run["final"] = {{"bits_per_byte", result.bits_per_byte},
                  {"nats_per_token", result.nats_per_token},
                  {"activated_parameters", activated_parameters(config_, model_.router_weights(), widths)},
                  {"activated_width", mean(widths)},
                  {"activated_width_per_layer", widths},
                  {"activated_experts_per_layer", per_layer(result.routing, experts_per_token)},
                  {"training_activated_width", mean(widths_of(totals_))},
                  {"flops_per_token", flops() / static_cast<double>(tokens())},
                  {"tokens_per_second", static_cast<double>(tokens()) / seconds_},
                  {"seconds", seconds_},
                  {"tokens", tokens()},
                  {"steps", steps_},
                  {"share_per_layer", per_layer(result.routing, shares)}};
  run["history"] = history_;
  run["sample"] = sample_text();
  return run;
}

void trainer::write_routing(const std::string& path) const {
  hmoe::io::routing_log_writer<float> log(path);
  for (std::size_t l = 0; l < config_.shape.blocks; ++l) {
    auto record = model_.layer(l).routing();
    record.step = steps_;
    record.layer = l;
    log.add(record);
  }
  log.close();
}

std::string trainer::sample_text() const {
  decoder<float> single = make_generator(config_);
  const auto parameters = single.parameters();
  for (std::size_t i = 0; i < parameters.size(); ++i)
    std::ranges::copy(parameters_[i].value, parameters[i].value.begin());
  for (std::size_t l = 0; l < config_.shape.blocks; ++l)
    single.layer(l).restore(model_.layer(l).state());
  const std::vector<token> prompt(text_.heldout.begin(), text_.heldout.begin() + 16);
  std::string sample;
  for (const token t : generate(single, prompt, 160, 0.8, hmoe::seed{config_.seed}))
    sample += text_.pieces[t];
  return sample;
}

} // namespace language_model
