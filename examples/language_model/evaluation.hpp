// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/statistics/activation.hpp>
#include <hmoe/statistics/token_distribution.hpp>

#include "analysis.hpp"
#include "batches.hpp"
#include "corpus.hpp"
#include "decoder.hpp"
#include "routing_statistics.hpp"

#include <cstddef>
#include <numbers>
#include <span>
#include <string>
#include <vector>

namespace language_model {

struct evaluation {
  double nats_per_token = 0.0;
  double bits_per_byte = 0.0; ///< all nats / ln 2 / bytes of text that were predicted
  routing_statistics routing;
};

inline void record(token_record& to, const decoder<float>& model, const batch& b) {
  to.tokens.insert(to.tokens.end(), b.inputs.begin(), b.inputs.end());
  to.losses.insert(to.losses.end(), model.token_losses().begin(), model.token_losses().end());
  const std::vector<hmoe::index_t> ids(b.inputs.begin(), b.inputs.end());
  for (std::size_t l = 0; l < to.widths.size(); ++l) {
    const auto& layer = model.layer(l);
    hmoe::statistics::add_token_distribution(layer.assignment(), ids, to.counts[l].view());
    for (const double width : hmoe::statistics::activated_per_token(layer.assignment(), layer.widths()))
      to.widths[l].push_back(static_cast<float>(width));
  }
}

/// Runs the model over every `stride`-th window of the held-out text; fills `tokens` too where it is given. Several
/// processes run all windows each, so that each has all results.
inline evaluation evaluate(decoder<float>& model, const corpus& text, std::span<const std::size_t> windows,
                           std::size_t stride = 1, token_record* tokens = nullptr) {
  const auto& shape = model.shape();
  evaluation result;
  result.routing = no_statistics(shape.blocks, model.layer(0).routed());
  double nats = 0.0;
  std::size_t bytes = 0;
  // The windows of a training batch at a time, which are the same ones whatever the number of processes.
  const std::size_t together = model.sequences() * model.processes();
  for (std::size_t i = 0, w = 0; w + (together - i % together - 1) * stride < windows.size(); i += model.sequences()) {
    batch b;
    for (std::size_t s = 0; s < model.sequences(); ++s, w += stride)
      b.append(text.heldout, windows[w], shape.context);
    nats += model.evaluate(b.inputs, b.targets) * static_cast<double>(b.inputs.size());
    for (const token target : b.targets)
      bytes += text.pieces[target].size();
    add_batch(result.routing, model);
    if (tokens != nullptr)
      record(*tokens, model, b);
  }
  result.nats_per_token = nats / static_cast<double>(result.routing.front().tokens);
  result.bits_per_byte = nats / std::numbers::ln2 / static_cast<double>(bytes);
  return result;
}

} // namespace language_model
