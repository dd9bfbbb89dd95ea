// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/random.hpp>
#include <hmoe/core/tape.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>

namespace hmoe {

/// Which tokens an expert keeps when more come than its capacity allows. One function:
///   priority(tape, token, entry)     of an entry of the assignment in the tape: the higher is kept; equals go to the
///                                      lower token, and NaN comes last
/// It may look at everything that the tape has by then: assignment, logits, probabilities, routing inputs.
template <class D>
concept drop_order = std::copyable<D> && requires(const D& d, const tape<float>& single, const tape<double>& wide,
                                                  std::size_t token, std::size_t entry) {
  { d.priority(single, token, entry) } -> std::convertible_to<double>;
  { d.priority(wide, token, entry) } -> std::convertible_to<double>;
};

namespace capacity {

/// Earlier tokens win (Switch, Megatron's "position"): a drop depends on what comes before, not after.
struct keep_first {
  template <class T> static double priority(const tape<T>&, std::size_t, std::size_t) noexcept { return 0; }
};

/// Higher weights win (Megatron's "probs"), the lower token on ties.
struct keep_heaviest {
  template <class T> static double priority(const tape<T>& tape, std::size_t, std::size_t entry) noexcept {
    return static_cast<double>(tape.assignment().weights()[entry]);
  }
};

/// All first choices before all second choices and so on, by position within each (GShard, DeepSpeed's top-2 gating).
/// A token's choices rank by weight, ties by expert id.
struct keep_first_choices {
  template <class T> static double priority(const tape<T>& tape, std::size_t token, std::size_t entry) noexcept {
    const auto& assigned = tape.assignment();
    const T weight = assigned.weights()[entry];
    double better = 0;
    for (std::size_t a = assigned.offsets()[token]; a < assigned.offsets()[token + 1]; ++a)
      better += assigned.weights()[a] > weight || (assigned.weights()[a] == weight && a < entry) ? 1 : 0;
    return -better;
  }
};

/// Drawn by lot: uniform numbers from (key, step), a function of token and expert id. The step is that of the noise
/// source in the routing inputs, so that every training step draws anew, and 0 without one.
struct keep_random {
  seed key;

  template <class T> double priority(const tape<T>& tape, std::size_t token, std::size_t entry) const noexcept {
    const auto& noise = tape.trace().inputs().noise;
    const std::uint64_t expert = tape.assignment().experts()[entry];
    return uniform(key, noise ? noise->step : 0, (std::uint64_t{token} << 32U) | expert);
  }
};

} // namespace capacity
} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
