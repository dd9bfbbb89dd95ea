// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/config.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/overlap.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/backend.hpp>
#include <hmoe/execution/context.hpp>

#include <concepts>
#include <cstddef>
#include <string_view>
#include <type_traits>

/// What is wrong with the arguments of a pass of a layer, in one sentence: types when it is compiled, sizes and memory
/// when it runs.
namespace hmoe::detail {

/// What a pass of a layer of T takes: forward(ctx, in = x, out = y), backward(ctx, tape, in = dy, out = dx, gradients).
template <class T, class Context, class In, class Out>
concept pass_arguments = execution_context<std::remove_cvref_t<Context>> &&
                         std::convertible_to<In, matrix_view<const T>> && std::convertible_to<Out, matrix_view<T>>;

template <class T> using other_real = std::conditional_t<std::is_same_v<T, float>, double, float>;

/// Never compiles: for arguments that are not those of a pass.
template <class T, class First, class In, class Out> constexpr void explain_arguments() {
  using context_type = std::remove_cvref_t<First>;
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

/// What the experts and the router of a layer must be for one another.
inline void check_parts(std::size_t experts, std::size_t d_model, std::size_t router_size, std::size_t router_d_model,
                        bool reads_router_x) {
  require(experts == router_size, "the router chooses among ", router_size, " experts, the layer has ", experts);
  require(reads_router_x || d_model == router_d_model, "the router reads tokens of d_model ", router_d_model,
          ", the experts of ", d_model);
}

/// Each throws hmoe::error with the numbers, before a pass writes anything. They know of the layer what they hold the
/// arguments against, and are compiled once for all layers of T.
template <class T> class argument_checks {
public:
  template <class Layer>
  explicit argument_checks(const Layer& layer) noexcept
      : d_model_(layer.d_model()), size_(layer.size()), routed_(layer.router().routed()),
        router_d_model_(layer.router().d_model()), reads_router_x_(layer.reads_router_x()) {
    if constexpr (requires { layer.router().limits_choices(); })
      limits_choices_ = layer.router().limits_choices();
  }

  /// The tokens that the pass reads and what it writes: x and y, dy and dx.
  void shapes(matrix_view<const T> in, matrix_view<T> out, std::string_view out_name) const {
    require(in.cols() == d_model_, "a token has ", in.cols(), " values, the layer's d_model is ", d_model_);
    require(in.rows() == out.rows() && in.cols() == out.cols(), out_name, " is ", out.rows(), " x ", out.cols(),
            ", needed is ", in.rows(), " x ", in.cols());
    check_output(in, out, out_name);
    require(in.rows() < no_index, in.rows(), " tokens in one batch are too many for 32-bit ids");
  }
  /// Experts in place of the layer's own: as many, or where there are several for each of them a multiple.
  void experts(std::size_t size, std::size_t d_model, bool several) const {
    require((several ? size % size_ == 0 : size == size_) && d_model == d_model_, "given are ", size,
            " experts of d_model ", d_model, ", the layer has ", size_, " of ", d_model_);
  }
  void inputs(const routing_inputs<T>& given, matrix_view<T> y) const {
    require(limits_choices_ || given.most_experts == 0, "routing_inputs::most_experts is ", given.most_experts,
            ", but the router of this layer does not look at it: leave it out, or take a routing::router");
    router_x(given.router_x, y);
  }
  void d_router_x(const tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx, matrix_view<T> given) const {
    if (!reads_router_x_) {
      require(given.rows() == 0, "the router of this layer reads x, so that its gradient is in dx: leave d_router_x "
                                 "out");
      return;
    }
    require(given.rows() == dy.rows() && (dy.rows() == 0 || given.cols() == router_d_model_),
            "the router of this layer reads routing_inputs::router_x, whose gradient is an output of its own: "
            "backward(ctx, tape, dy, dx, d_router_x, gradients); d_router_x is ",
            given.rows(), " x ", given.cols(), ", needed is ", dy.rows(), " x ", router_d_model_);
    check_output(tape.trace().inputs().router_x, given, "d_router_x");
    check_output(dy, given, "d_router_x");
    require(!overlaps(dx, given), "d_router_x overlaps dx; they must be different memory");
  }
  /// A tape or gradients of another layer would lead beyond their memory.
  void tape_of_layer(const tape<T>& tape) const {
    require(tape.trace().expert_count() == routed_, "the tape is of a layer that routes to ",
            tape.trace().expert_count(), " experts, this one to ", routed_);
  }
  template <class Experts> void gradients_of(const Experts& experts, const Experts& gradients) const {
    require(gradients.size() == experts.size(), "the gradients are of a layer with ", gradients.size(),
            " experts, this one has ", experts.size());
    require(gradients.d_model() == d_model_, "the gradients are of a layer with d_model ", gradients.d_model(),
            ", this one has ", d_model_);
    for (std::size_t e = 0; e < experts.size(); ++e)
      require(gradients.width(e) == experts.width(e), "the gradients are of a layer whose expert ", e, " has width ",
              gradients.width(e), ", this one's has ", experts.width(e));
  }

private:
  /// What the router reads, where that is a tensor of its own.
  void router_x(matrix_view<const T> given, matrix_view<T> y) const {
    if (!reads_router_x_) {
      require(given.rows() == 0, "routing_inputs::router_x is given, ", given.rows(), " x ", given.cols(),
              ", but the router of this layer reads x: wrap its score in routing::own_input, or leave router_x out");
      return;
    }
    require(given.rows() == y.rows() && (y.rows() == 0 || given.cols() == router_d_model_),
            "the router of this layer reads routing_inputs::router_x, which is ", given.rows(), " x ", given.cols(),
            ", needed is ", y.rows(), " x ", router_d_model_);
    check_output(given, y, "y");
  }

  std::size_t d_model_, size_, routed_, router_d_model_;
  bool reads_router_x_, limits_choices_ = false;
};
template <class Layer> argument_checks(const Layer&) -> argument_checks<typename Layer::value_type>;

} // namespace hmoe::detail

#include <hmoe/core/macros_on.hpp>
