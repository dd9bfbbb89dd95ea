// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/routing/projection.hpp>
#include <hmoe/routing/score.hpp>
#include <hmoe/routing/score_functions/softmax.hpp>

#include <algorithm>

namespace hmoe::routing {

/// A score that knows nothing: all logits are 0, there are no parameters. For selections that do not look at them, such
/// as `random_hash`, together with the weighting `equal_weights`.
template <float_or_double T> class no_score {
public:
  using value_type = T;

  no_score(std::size_t d_model, std::size_t experts) : d_model_(d_model), experts_(experts) {
    require(d_model >= 1 && experts >= 1, "a router from d_model = ", d_model, " to ", experts,
            " experts: both must be at least 1");
  }
  [[nodiscard]] std::size_t d_model() const noexcept { return d_model_; }
  [[nodiscard]] std::size_t size() const noexcept { return experts_; }
  [[nodiscard]] static constexpr std::size_t saved_per_token() noexcept { return 0; }
  [[nodiscard]] static constexpr softmax function() noexcept { return {}; }

  template <execution_context Context>
  static void forward(const Context& ctx, matrix_view<const T> x, router_trace<T>& trace) {
    hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) { std::ranges::fill(trace.logits().row(t), T(0)); });
  }
  template <execution_context Context>
  static void backward(const Context&, matrix_view<const T>, const router_trace<T>&, matrix_view<const T>,
                       matrix_view<T>, no_score&) noexcept {}
  template <class Visitor> static void visit_parameters(Visitor&&) noexcept {}
  static void initialize(seed, std::uint64_t, const initialization&) noexcept {}

private:
  std::size_t d_model_, experts_;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
