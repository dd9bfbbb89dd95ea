// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/config.hpp>
#include <hmoe/core/scalar_functions.hpp>
#include <hmoe/core/tape.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <memory_resource>

namespace hmoe {

/// What becomes of the weights of a token's other experts when a capacity has dropped some.
namespace capacity {

/// They stay as they are (Switch, MegaBlocks, Megatron-LM).
struct keep_weights {};

/// w'_i = w_i · S/K with S = Σ w_j over all routed experts of the token and K = Σ w_j over those that are kept, so that
/// their sum is what it was (GShard's and DeepSpeed's top-2 gates, whose sum is 1). Tokens without a drop keep their
/// bits, shared experts their weights; where nothing is kept or K is 0 or subnormal, the weights stay. The gradient
/// runs through S and K, so that dropped entries have one, too. The assignment in the tape holds the router's weights.
struct renormalize_kept {};

} // namespace capacity

namespace dispatch {

/// While it lives the assignment of a tape has the weights of renormalize_kept in place of the router's.
template <class T> class renormalized_weights {
public:
  /// Memory for `entries` weights: what it takes.
  [[nodiscard]] static buffer<T> memory(std::pmr::memory_resource* resource, std::size_t entries) {
    return buffer<T>(entries, resource);
  }

  renormalized_weights(tape<T>& tape, buffer<T>& originals) noexcept : tape_(tape), originals_(originals) {
    const auto weights = tape_.assignment().weights();
    std::ranges::copy(weights, originals_.begin());
    for_each_token([&](std::size_t first, std::size_t count, const sums& of) {
      for (std::size_t a = first; a < first + count; ++a)
        if (is_kept(a))
          weights[a] = weights[a] * of.all / of.kept;
    });
  }
  renormalized_weights(const renormalized_weights&) = delete;
  renormalized_weights& operator=(const renormalized_weights&) = delete;
  ~renormalized_weights() { std::ranges::copy(originals_, tape_.assignment().weights().begin()); }

  /// ∂L/∂w in place of ∂L/∂w'. With A = Σ_kept dw'_i w_i:
  ///   kept: dw'_j S/K + A/K − A S/K²;  dropped: A/K
  void backward(vector_view<T> d_weights) const noexcept {
    for_each_token([&](std::size_t first, std::size_t count, const sums& of) {
      T along = 0;
      for (std::size_t a = first; a < first + count; ++a)
        if (is_kept(a))
          along += d_weights[a] * originals_[a];
      along /= of.kept;
      for (std::size_t a = first; a < first + count; ++a)
        d_weights[a] = is_kept(a) ? (d_weights[a] - along) * (of.all / of.kept) + along : along;
    });
  }

private:
  struct sums {
    T all = 0, kept = 0;
  };
  [[nodiscard]] bool is_kept(std::size_t entry) const noexcept { return tape_.plan().slots()[entry] != no_index; }

  /// f(first, count, sums) for the routed entries of each token that has lost some and kept some; sums of the router's
  /// weights.
  template <class F> void for_each_token(F f) const noexcept {
    const auto& assigned = tape_.assignment();
    for (std::size_t t = 0; t < assigned.tokens(); ++t) {
      const std::size_t first = assigned.offsets()[t];
      std::size_t count = 0, dropped = 0;
      sums of;
      for (std::size_t a = first; a < assigned.offsets()[t + 1]; ++a) {
        if (assigned.experts()[a] >= tape_.trace().expert_count())
          continue; // shared experts come last
        ++count;
        of.all += originals_[a];
        if (is_kept(a))
          of.kept += originals_[a];
        else
          ++dropped;
      }
      if (dropped != 0 && !is_tiny(of.kept))
        f(first, count, of);
    }
  }

  tape<T>& tape_;
  buffer<T>& originals_;
};

} // namespace dispatch
} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
