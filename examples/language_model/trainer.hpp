// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/simd.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/hmoe.hpp>

#include "batches.hpp"
#include "checkpoint.hpp"
#include "corpus.hpp"
#include "decoder.hpp"
#include "evaluation.hpp"
#include "process_group.hpp"
#include "routing_statistics.hpp"
#include "run_config.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace language_model {

/// Copies a checkpoint's tensors, and what its routers keep besides, into a model of the same configuration.
void load_model(const checkpoint& saved, decoder<float>& model);

/// A model for generation, one window at a time; its parameters are yet to be loaded.
decoder<float> make_generator(const run_config& config);

/// Throws hmoe::error unless the configuration makes sense and the corpus is long enough for it.
void validate(const run_config& config, const corpus& text);

/// One training run: model, optimiser, and where it stands. All numbers but the times are a function of config and
/// corpus alone: neither the number of threads nor interruptions show in them.
class trainer {
public:
  /// The corpus and the group must outlive the trainer. The processes of a group each train with a part of every batch;
  /// what is written below holds for all of them, and all call the same functions at the same time.
  trainer(const run_config& config, const corpus& text, std::size_t threads, const process_group* group = nullptr);

  /// Whether the budget of FLOPs is spent.
  bool finished() const;
  double fraction_done() const;
  std::uint64_t steps() const { return steps_; }
  std::uint64_t tokens() const { return totals_.front().tokens; }
  double last_loss() const { return last_loss_; }
  const std::vector<hmoe::parameter<float>>& parameters() const { return parameters_; }

  /// One batch forward, backward, and into the optimiser; now and then a point of the history.
  void step();

  checkpoint save();
  /// Throws hmoe::error when the checkpoint is of another configuration.
  void restore(const checkpoint& saved);

  /// Evaluates a finished run and describes it: one entry of "runs" in results.json.
  nlohmann::json results();
  /// Writes a routing log (hmoe/io/routing_log.hpp): where each layer sent the tokens of the last batch, which after
  /// results() is one of held-out text. benchmarks can replay it.
  void write_routing(const std::string& path) const;

private:
  /// Losses and clipped gradients of a batch. Throws hmoe::error with the remedy when numbers are no longer finite.
  decoder<float>::losses accumulate_gradients(const batch& b);
  bool all_finite() const;
  /// The mean loss of the last batch, of all processes' tokens in their order, so that its bits do not depend on how
  /// many processes there are.
  double mean_loss(double own) const;
  /// Gives this process the weights and moments of the experts of the others.
  void collect_experts();
  void record_point();
  double flops() const;
  /// Activated width per layer.
  std::vector<double> widths_of(const routing_statistics& statistics) const;
  /// The first tokens of the held-out text and what the model makes of them.
  std::string sample_text() const;

  run_config config_;
  const corpus& text_;
  const process_group* group_; ///< nobody: none
  decoder<float> model_;
  std::vector<hmoe::parameter<float>> parameters_;
  hmoe::context<hmoe::backends::simd<>, hmoe::executors::openmp> context_;
  hmoe::training::adamw<float> optimizer_;
  std::vector<std::size_t> evaluation_windows_;

  std::uint64_t steps_ = 0;
  double seconds_ = 0.0;
  double last_loss_ = 0.0;
  routing_statistics totals_;      ///< since the start
  routing_statistics since_point_; ///< since the last point of the history
  double loss_since_point_ = 0.0;
  std::uint64_t steps_since_point_ = 0;
  nlohmann::json history_ = nlohmann::json::array();
};

} // namespace language_model
