// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/dispatch/dispatcher.hpp>

#include "any_experts.hpp"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace benchmarks {

/// A dispatch strategy behind virtual calls.
class any_strategy {
public:
  virtual ~any_strategy() = default;
  virtual void forward(const dispatch_context& ctx, const any_experts& experts, hmoe::matrix_view<const float> x,
                       hmoe::matrix_view<float> y, hmoe::tape<float>& tape) const = 0;
  virtual void backward(const dispatch_context& ctx, const any_experts& experts, hmoe::tape<float>& tape,
                        hmoe::matrix_view<const float> dy, hmoe::matrix_view<float> dx,
                        hmoe::vector_view<float> d_weights, any_experts& gradients) const = 0;
};

template <class Dispatch> class held_strategy final : public any_strategy {
  static_assert(hmoe::dispatcher<Dispatch, dispatch_context, any_experts>,
                "benchmarks: Dispatch does not model hmoe::dispatcher: it needs forward, backward, slots, "
                "lay_out_forward and lay_out_backward (see hmoe/dispatch/dispatcher.hpp)");

public:
  explicit held_strategy(Dispatch dispatch) : dispatch_(std::move(dispatch)) {}
  void forward(const dispatch_context& ctx, const any_experts& experts, hmoe::matrix_view<const float> x,
               hmoe::matrix_view<float> y, hmoe::tape<float>& tape) const override {
    dispatch_.forward(ctx, experts, x, y, tape);
  }
  void backward(const dispatch_context& ctx, const any_experts& experts, hmoe::tape<float>& tape,
                hmoe::matrix_view<const float> dy, hmoe::matrix_view<float> dx, hmoe::vector_view<float> d_weights,
                any_experts& gradients) const override {
    dispatch_.backward(ctx, experts, tape, dy, dx, d_weights, gradients);
  }

private:
  Dispatch dispatch_;
};

/// A strategy by name.
struct named_strategy {
  std::string name;
  std::shared_ptr<const any_strategy> run;
  bool drops = false;    ///< it has a capacity: it wins nothing, and its results are not compared
  bool bit_exact = true; ///< the bits of `sorted`; else results agree to 1e-4
  /// What the laws of hmoe/testing/dispatch_laws.hpp find, "" where all are kept; empty for shipped strategies, which
  /// the tests hold to them.
  std::function<std::string()> laws = {};
};

/// All that are measured but for `automatic`, which needs the limits of the machine: shipped ones, then registered
/// ones.
[[nodiscard]] std::vector<named_strategy>& strategies();

template <class Dispatch>
[[nodiscard]] named_strategy make_strategy(std::string name, Dispatch dispatch, bool drops = false) {
  return {std::move(name), std::make_shared<held_strategy<Dispatch>>(std::move(dispatch)), drops};
}

} // namespace benchmarks
