// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/error.hpp>
#include <hmoe/core/random.hpp>

#include "corpus.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace language_model {

/// Windows of text with the tokens that follow: targets[i] comes after inputs[i].
struct batch {
  std::vector<token> inputs;
  std::vector<token> targets;

  void append(std::span<const token> text, std::size_t first, std::size_t context) {
    const auto window = text.subspan(first, context + 1);
    inputs.insert(inputs.end(), window.begin(), window.end() - 1);
    targets.insert(targets.end(), window.begin() + 1, window.end());
  }
};

/// One of `parts` equal parts of a batch of whole windows.
inline batch part_of(const batch& whole, std::size_t part, std::size_t parts) {
  const std::size_t size = whole.inputs.size() / parts;
  const auto take = [&](const std::vector<token>& from) {
    const auto first = from.begin() + static_cast<std::ptrdiff_t>(part * size);
    return std::vector<token>(first, first + static_cast<std::ptrdiff_t>(size));
  };
  return {take(whole.inputs), take(whole.targets)};
}

/// The batch of a training step: windows at random places. A function of seed and step alone, so that a resumed run
/// goes on with the same text, and all variants with one seed read the same text in the same order.
inline batch training_batch(std::span<const token> text, std::size_t windows, std::size_t context, hmoe::seed seed,
                            std::uint64_t step) {
  constexpr std::uint64_t stream = std::uint64_t{1} << 40U; // apart from the streams of the initialisation
  batch b;
  for (std::size_t w = 0; w < windows; ++w) {
    const double place = hmoe::uniform(seed, stream, step * windows + w);
    b.append(text, static_cast<std::size_t>(place * static_cast<double>(text.size() - context)), context);
  }
  return b;
}

/// First tokens of the evaluation windows: spread evenly over the held-out text, as many as fit without overlap up
/// to `tokens` tokens, a multiple of `multiple` windows.
inline std::vector<std::size_t> evaluation_windows(std::size_t heldout_tokens, std::size_t context,
                                                   std::size_t multiple, std::size_t tokens) {
  const std::size_t fit = heldout_tokens > 0 ? (heldout_tokens - 1) / context : 0;
  const std::size_t count = std::min(tokens / context, fit) / multiple * multiple;
  hmoe::require(count > 0, "an evaluation on ", tokens, " of ", heldout_tokens, " held-out tokens has not even ",
                multiple, " windows of ", context,
                " tokens; give a longer text, a smaller --context or --batch, or a larger --evaluation-tokens");
  std::vector<std::size_t> first(count);
  const std::size_t room = heldout_tokens - 1 - context;
  for (std::size_t i = 0; i < count; ++i)
    first[i] = count > 1 ? room * i / (count - 1) : 0;
  return first;
}

} // namespace language_model
