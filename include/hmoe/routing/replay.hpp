// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/routing/padding.hpp>

#include <algorithm>
#include <utility>

namespace hmoe::routing {

/// A router that gives every batch the same, recorded assignment, whatever the tokens are: to time dispatch on real
/// routing, to compare experts under equal routing, to reproduce a run. It has no parameters and no gradient: dx gets
/// nothing from it. A batch of another number of tokens than the recorded one is an hmoe::error.
/// The trace gets the recorded logits and probabilities where they are given; else logits are 0 and probabilities are
/// the weights of the selected experts. io/routing_log.hpp reads them from files.
template <float_or_double T> class replay {
public:
  using value_type = T;

  /// For a layer of `experts` experts and tokens of d_model values. logits and probabilities are [T×N] over the
  /// `routed` experts that come first, or empty; routed 0 means all.
  replay(std::size_t d_model, std::size_t experts, assignment<T> recorded, matrix<T> logits = {},
         matrix<T> probabilities = {}, std::size_t routed = 0, bool weights_on_input = false)
      : d_model_(d_model), experts_(experts), routed_(routed == 0 ? experts : routed),
        weights_on_input_(weights_on_input), recorded_(std::move(recorded)), logits_(std::move(logits)),
        probabilities_(std::move(probabilities)) {
    require(d_model >= 1 && experts >= 1, "a replay for d_model = ", d_model, " and ", experts,
            " experts: both must be at least 1");
    require(routed_ <= experts, "a replay with ", routed_, " routed experts of ", experts);
    recorded_.validate(experts);
    check_shape(logits_, "logits");
    check_shape(probabilities_, "probabilities");
    for (std::size_t t = 0; t < recorded_.tokens(); ++t)
      max_selected_ = std::max(max_selected_, std::as_const(recorded_).experts_of(t).size());
  }

  [[nodiscard]] std::size_t d_model() const noexcept { return d_model_; }
  [[nodiscard]] std::size_t size() const noexcept { return experts_; }
  [[nodiscard]] std::size_t routed() const noexcept { return routed_; }
  [[nodiscard]] std::size_t max_selected() const noexcept { return max_selected_; }
  [[nodiscard]] static constexpr std::size_t saved_per_token() noexcept { return 0; }
  [[nodiscard]] bool weights_on_input() const noexcept { return weights_on_input_; }
  [[nodiscard]] const assignment<T>& recorded() const noexcept { return recorded_; }

  template <execution_context Context>
  void forward(const Context&, matrix_view<const T> x, router_trace<T>& trace, assignment<T>& assigned) const {
    require(x.rows() == recorded_.tokens(), "the batch has ", x.rows(), " tokens, the recorded routing ",
            recorded_.tokens());
    detail::require_mask(trace, x.rows());
    assigned.resize_tokens(recorded_.tokens());
    assigned.set_padding(x.rows() - trace.valid_tokens());
    for (std::size_t t = 0; t < x.rows(); ++t)
      assigned.offsets()[t + 1] = trace.is_valid(t) ? static_cast<index_t>(recorded_.experts_of(t).size()) : 0;
    assigned.sum_counts();
    assigned.resize_entries();
    for (std::size_t t = 0; t < x.rows(); ++t) {
      if (!trace.is_valid(t)) {
        std::ranges::fill(trace.logits().row(t), T(0));
        std::ranges::fill(trace.probabilities().row(t), T(0));
        continue;
      }
      std::ranges::copy(recorded_.experts_of(t), assigned.experts().begin() + assigned.offsets()[t]);
      std::ranges::copy(recorded_.weights_of(t), assigned.weights().begin() + assigned.offsets()[t]);
      fill_row(logits_, t, trace.logits().row(t));
      fill_row(probabilities_, t, trace.probabilities().row(t));
      const auto ids = recorded_.experts_of(t);
      for (std::size_t i = 0; i < ids.size(); ++i)
        if (ids[i] < routed_) {
          ++trace.tokens_per_expert()[ids[i]];
          if (probabilities_.size() == 0)
            trace.probabilities()(t, ids[i]) = recorded_.weights_of(t)[i];
        }
    }
  }
  template <execution_context Context>
  void backward(const Context&, matrix_view<const T>, const router_trace<T>&, const assignment<T>&,
                vector_view<const T>, matrix_view<T>, replay&) const noexcept {}

  template <class Visitor> void visit_parameters(Visitor&&) noexcept {}
  void initialize(seed, std::uint64_t, const initialization&) noexcept {}

private:
  void check_shape(const matrix<T>& values, const char* name) const {
    require(values.size() == 0 || (values.rows() == recorded_.tokens() && values.cols() == routed_), "the recorded ",
            name, " are ", values.rows(), " x ", values.cols(), ", the assignment needs ", recorded_.tokens(), " x ",
            routed_);
  }
  static void fill_row(const matrix<T>& from, std::size_t token, vector_view<T> to) noexcept {
    if (from.size() == 0)
      std::fill(to.begin(), to.end(), T(0));
    else
      std::ranges::copy(from.row(token), to.begin());
  }

  std::size_t d_model_, experts_, routed_, max_selected_ = 0;
  bool weights_on_input_;
  assignment<T> recorded_;
  matrix<T> logits_, probabilities_;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
