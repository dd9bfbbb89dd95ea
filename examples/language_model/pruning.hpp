// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/compress/calibration.hpp>

#include "batches.hpp"
#include "decoder.hpp"
#include "feed_forward.hpp"

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace language_model {

/// What is cut from the experts of each layer.
enum class cut {
  nothing,
  uniform,  ///< every expert to the same share of its width: the neurons that HEAPr finds most important in it
  unequal,  ///< neurons ranked over all experts of the layer by HEAPr
  drop,     ///< whole experts, the least important by REAP; they return 0
  constants ///< whole experts, those whose outputs vary least; they return their mean output (MoNE)
};
inline constexpr cut all_cuts[] = {cut::uniform, cut::unequal, cut::drop, cut::constants};
std::string_view name_of(cut how);

/// Statistics of training batches for each layer: forward and backward passes of the task's loss alone.
std::vector<hmoe::compress::calibration> calibrate(decoder<float>& model, std::span<const batch> batches);

/// The layers of a model with at most `budget` of their experts' parameters, from 0 to 1; those of whole experts are
/// cut one by one until the rest fits. Routers stay. The layers work on `sequences` windows at a time and train the
/// task alone.
decoder<float>::layers pruned_layers(const decoder<float>& model, std::span<const hmoe::compress::calibration> sums,
                                     cut how, double budget, std::size_t threads);

/// Copies attention, embedding, head and norms to a model with other layers.
void copy_all_but_layers(decoder<float>& from, decoder<float>& to);

} // namespace language_model
