// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <array>
#include <cstddef>

namespace hmoe::probes {

/// The open stages of one worker: what a stage took by itself, without the stages inside it. Sample is a reading of
/// clocks or counters, with - and +=. Stages beyond 32 deep count as part of the one that contains them.
template <class Sample> class nesting {
public:
  void begin(const Sample& now) noexcept {
    if (depth_ < most)
      open_[depth_] = {now, Sample{}};
    ++depth_;
  }
  /// What the innermost open stage took by itself.
  [[nodiscard]] Sample end(const Sample& now) noexcept {
    if (depth_ == 0)
      return Sample{};
    --depth_;
    if (depth_ >= most)
      return Sample{};
    const Sample all = now - open_[depth_].start;
    if (depth_ != 0)
      open_[depth_ - 1].inside += all;
    return all - open_[depth_].inside;
  }
  [[nodiscard]] std::size_t depth() const noexcept { return depth_; }

private:
  static constexpr std::size_t most = 32;
  struct stage_open {
    Sample start, inside;
  };
  std::array<stage_open, most> open_{};
  std::size_t depth_ = 0;
};

} // namespace hmoe::probes

#include <hmoe/core/macros_on.hpp>
