// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/backend.hpp>
#include <hmoe/execution/context.hpp>

#include <concepts>
#include <type_traits>

/// What is wrong with the arguments of a pass, in one sentence.
namespace hmoe::detail {

/// What a pass of a layer of T takes: forward(ctx, in = x, out = y), backward(ctx, tape, in = dy, out = dx, gradients).
template <class T, class Context, class In, class Out>
concept pass_arguments = execution_context<std::remove_cvref_t<Context>> &&
                         std::convertible_to<In, matrix_view<const T>> && std::convertible_to<Out, matrix_view<T>>;

template <class T> using other_real = std::conditional_t<std::is_same_v<T, float>, double, float>;

/// Never compiles: for arguments that are not those of a pass.
template <class T, class Context, class In, class Out> constexpr void explain_arguments() {
  using context_type = std::remove_cvref_t<Context>;
  if constexpr (!execution_context<context_type>) {
    static_assert(!backend<context_type>,
                  "hmoe::moe_layer: the first argument of the pass is a backend, not a context: make one, "
                  "context cpu{backend}, and pass cpu");
    static_assert(backend<context_type>,
                  "hmoe::moe_layer: the first argument of the pass is no context that computes on the host: pass for "
                  "instance hmoe::context{backends::reference{}}");
  } else if constexpr (!std::convertible_to<In, matrix_view<const T>>) {
    constexpr bool other = std::convertible_to<In, matrix_view<const other_real<T>>>;
    constexpr bool list = std::convertible_to<In, vector_view<const T>>;
    static_assert(!other, "hmoe::moe_layer: the input (x, or dy of backward) has another value_type than the layer: "
                          "give both float, or both double");
    static_assert(!list, "hmoe::moe_layer: the input (x, or dy of backward) is a list of values, not a matrix: say how "
                         "many rows it has, as in matrix_view<const float>(x.data(), rows, layer.d_model())");
    static_assert(other || list, "hmoe::moe_layer: the input (x, or dy of backward) is no matrix: pass an "
                                 "hmoe::matrix, an hmoe::matrix_view, or a row-major Eigen matrix");
  } else {
    constexpr bool constant = std::convertible_to<Out, matrix_view<const T>>;
    constexpr bool other = std::convertible_to<Out, matrix_view<const other_real<T>>>;
    constexpr bool list = std::convertible_to<Out, vector_view<const T>>;
    static_assert(!constant, "hmoe::moe_layer: the output (y, or dx of backward) is const, and the pass writes it: "
                             "pass a matrix, or a matrix_view<float> instead of a matrix_view<const float>");
    static_assert(!other, "hmoe::moe_layer: the output (y, or dx of backward) has another value_type than the layer: "
                          "give both float, or both double");
    static_assert(!list, "hmoe::moe_layer: the output (y, or dx of backward) is a list of values, not a matrix: say "
                         "how many rows it has, as in matrix_view<float>(y.data(), rows, layer.d_model())");
    static_assert(constant || other || list,
                  "hmoe::moe_layer: the output (y, or dx of backward) is no matrix: pass an hmoe::matrix, an "
                  "hmoe::matrix_view, or a row-major Eigen matrix");
  }
}

} // namespace hmoe::detail
