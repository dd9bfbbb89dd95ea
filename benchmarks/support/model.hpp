// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/hmoe.hpp>

#include "layers.hpp"
#include "shapes.hpp"

#include <array>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

namespace benchmarks {

/// How tokens spread over experts: all alike; in proportion to 1, 1/2, 1/3 …; or all tokens to the same few.
enum class routing { uniform, zipf, collapsed };
inline constexpr std::array all_routings{routing::uniform, routing::zipf, routing::collapsed};
inline constexpr std::string_view name_of(routing r) {
  return std::array<std::string_view, 3>{"uniform", "zipf", "collapsed"}[static_cast<std::size_t>(r)];
}

/// One input of a layer, and what its router makes of it: competitors get the routing for nothing.
struct batch {
  hmoe::matrix<float> x;
  hmoe::assignment<float> assigned;
  hmoe::plan plan;
  hmoe::matrix<float> expected; ///< what hmoe's f32 layer returns; of a first batch only
  double flops = 0;             ///< of the router and the activated experts, without any padding
  double weights = 0;           ///< of the router and the experts that some token goes to
};

/// The weights of a shape, in enough copies that running them in turn finds every weight cold, like the layers of a
/// deep model.
class model {
public:
  /// As many copies as it takes, or one. Throws when memory does not suffice for `room` times the weights: whoever
  /// measures packs them once more, or has gradients.
  enum class copies { cold, one };
  model(layer_shape shape, copies wanted, double room);

  [[nodiscard]] const layer_shape& shape() const { return shape_; }
  [[nodiscard]] std::size_t copy_count() const { return layers_.size(); }
  /// Copies of that many bytes each which, taken in turn, leave two last-level caches of weights between two uses of
  /// those of a token; one where one was wanted.
  [[nodiscard]] std::size_t cold_copies(double bytes) const;
  [[nodiscard]] const any_layer& layer(std::size_t copy) const { return layers_[copy]; }
  [[nodiscard]] any_layer& layer(std::size_t copy) { return layers_[copy]; }

  /// The SwiGLU experts of a copy, whose weights competitors read where they lie.
  [[nodiscard]] const glu_bank& bank(std::size_t copy) const;

  /// Several inputs of that size, which spread so: at least `count`, or four, or two of more than 256 tokens.
  const std::vector<batch>& batches(std::size_t tokens, routing spread, std::size_t count = 0);

private:
  [[nodiscard]] any_layer make_layer() const;
  void popularity(hmoe::matrix_view<float> router) const;
  [[nodiscard]] batch make_batch(std::size_t tokens, routing spread, std::uint64_t stream) const;

  layer_shape shape_;
  copies wanted_;
  std::vector<any_layer> layers_;
  std::map<std::pair<std::size_t, routing>, std::vector<batch>> batches_;
};

} // namespace benchmarks
