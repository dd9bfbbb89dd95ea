// SPDX-License-Identifier: MIT
// Parts of a router that are chosen at run time: routing::router is compiled once and not once for each combination.
#pragma once

#include <hmoe/backends/simd.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/routing/router.hpp>
#include <hmoe/routing/score_functions/relu.hpp>
#include <hmoe/routing/score_functions/sigmoid.hpp>
#include <hmoe/routing/score_functions/softmax.hpp>
#include <hmoe/routing/score_functions/sqrt_softplus.hpp>
#include <hmoe/routing/weightings/equal_weights.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>
#include <hmoe/routing/weightings/sigmoid_of_logit.hpp>
#include <hmoe/routing/weightings/softmax_over_selected.hpp>

#include "../routes.hpp"

#include <cstddef>
#include <cstdint>
#include <utility>

namespace hmoe::python {

/// A score function by name; vectors where backends::simd has them.
struct chosen_score {
  score_function which = score_function::softmax;

  template <class F> auto with_function(const F& f) const {
    switch (which) {
    case score_function::sigmoid:
      return f(routing::sigmoid{});
    case score_function::sqrt_softplus:
      return f(routing::sqrt_softplus{});
    case score_function::relu:
      return f(routing::relu{});
    case score_function::softmax:
      break;
    }
    return f(routing::softmax{});
  }
  template <class T> void forward(vector_view<const T> z, vector_view<T> p) const {
    with_function([&](const auto& function) { backends::simd<>::score(function, z, p); });
  }
  template <class T>
  void backward(vector_view<const T> z, vector_view<const T> p, vector_view<const T> d_p, vector_view<T> d_z) const {
    with_function([&](const auto& function) { function.backward(z, p, d_p, d_z); });
  }
};

/// logits = W x on a weight of the caller; the gradient object has the memory of the gradient. A gradient without
/// memory is not computed, nor is dx.
template <class T> class linear_on_memory {
public:
  using value_type = T;

  linear_on_memory(matrix_view<T> weight, chosen_score function) : weight_(weight), function_(function) {}

  [[nodiscard]] std::size_t d_model() const noexcept { return weight_.cols(); }
  [[nodiscard]] std::size_t size() const noexcept { return weight_.rows(); }
  [[nodiscard]] static constexpr std::size_t saved_per_token() noexcept { return 0; }
  [[nodiscard]] const chosen_score& function() const noexcept { return function_; }

  template <execution_context Context>
  void forward(const Context& ctx, matrix_view<const T> x, router_trace<T>& trace) const {
    hmoe::for_each_row_block(ctx, x.rows(), [&](std::size_t first, std::size_t rows) {
      ctx.backend().multiply_transposed(x.row_block(first, rows), matrix_view<const T>(weight_),
                                        trace.logits().row_block(first, rows));
    });
  }
  template <execution_context Context>
  void backward(const Context& ctx, matrix_view<const T> x, const router_trace<T>&, matrix_view<const T> d_logits,
                matrix_view<T> dx, linear_on_memory& gradients) const {
    if (dx.data() != nullptr)
      hmoe::for_each_row_block(ctx, x.rows(), [&](std::size_t first, std::size_t rows) {
        ctx.backend().accumulate(d_logits.row_block(first, rows), matrix_view<const T>(weight_),
                                 dx.row_block(first, rows));
      });
    if (gradients.weight_.data() != nullptr)
      hmoe::for_each_row_block(ctx, x.cols(), [&](std::size_t first, std::size_t cols) { // no two tasks share a column
        ctx.backend().accumulate_transposed(d_logits, x.column_block(first, cols),
                                            gradients.weight_.column_block(first, cols));
      });
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) { visit(parameter_info{"router.weight"}, weight_); }
  /// The module draws the values.
  static void initialize(seed, std::uint64_t, const initialization&) noexcept {}

private:
  matrix_view<T> weight_;
  chosen_score function_;
};

/// A selection by name, with backends::simd's search.
struct chosen_selection {
  selection which = selection::top_k;
  double parameter = 1;

  template <class F> auto with_selection(const F& f) const {
    switch (which) {
    case selection::top_p:
      return f(routing::top_p{parameter});
    case selection::threshold:
      return f(routing::threshold{parameter});
    case selection::top_k:
      break;
    }
    return f(routing::top_k<>{static_cast<std::size_t>(parameter)});
  }
  [[nodiscard]] std::size_t max_selected(std::size_t experts) const noexcept {
    return which == selection::top_k ? static_cast<std::size_t>(parameter) : experts;
  }
  void validate(std::size_t experts) const {
    with_selection([&](const auto& select) { select.validate(experts); });
  }
  template <class T> std::size_t operator()(vector_view<const T> p, vector_view<index_t> chosen) const {
    return with_selection(
        [&](const auto& select) { return backends::simd<>::select(select, p, chosen, vector_view<T>{}); });
  }
};

/// A weighting by name.
struct chosen_weighting {
  weighting which = weighting::renormalized;

  template <class F> auto with_weighting(const F& f) const {
    switch (which) {
    case weighting::raw:
      return f(routing::raw{});
    case weighting::softmax_over_selected:
      return f(routing::softmax_over_selected{});
    case weighting::sigmoid_of_logit:
      return f(routing::sigmoid_of_logit{});
    case weighting::equal_weights:
      return f(routing::equal_weights{});
    case weighting::renormalized:
      break;
    }
    return f(routing::renormalized{});
  }
  template <class T>
  void forward(vector_view<const T> logits, vector_view<const T> p, vector_view<const index_t> chosen,
               vector_view<T> w) const {
    with_weighting([&](const auto& weigh) { weigh.forward(logits, p, chosen, w); });
  }
  template <class T, class Values>
  void backward(vector_view<const T> logits, vector_view<const T> p, vector_view<const index_t> chosen, const Values& w,
                const Values& dw, vector_view<T> d_logits, vector_view<T> d_p) const {
    with_weighting([&](const auto& weigh) { weigh.backward(logits, p, chosen, w, dw, d_logits, d_p); });
  }
};

template <class T> using chosen_router = routing::router<linear_on_memory<T>, chosen_selection, chosen_weighting>;

/// The router on the memory that is given, or its gradients on `weight`.
template <class T> [[nodiscard]] chosen_router<T> make_router(const router_memory& given, void* weight) {
  return {linear_on_memory<T>(matrix_view<T>(static_cast<T*>(weight), given.experts, given.d_model),
                              chosen_score{given.score}),
          chosen_selection{given.select, given.parameter}, chosen_weighting{given.weigh}};
}

} // namespace hmoe::python
