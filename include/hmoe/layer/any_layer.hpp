// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/owned.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/core/type_identity.hpp>
#include <hmoe/core/vector_view.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/layer/cost.hpp>
#include <hmoe/layer/moe_layer.hpp>

#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe {

namespace detail {
template <class T> struct any_gradients_base {
  explicit any_gradients_base(const void* mark) noexcept : type(mark) {}
  virtual ~any_gradients_base() = default;
  [[nodiscard]] virtual owned<any_gradients_base> clone() const = 0;
  virtual void visit(const visitor_reference<T>& visitor) = 0;

  const void* type; ///< the mark of the gradients' type
};
template <class T, class Gradients> struct any_gradients_of final : any_gradients_base<T> {
  explicit any_gradients_of(Gradients from)
      : any_gradients_base<T>(&type_mark<Gradients>), gradients(std::move(from)) {}
  [[nodiscard]] owned<any_gradients_base<T>> clone() const override {
    return owned<any_gradients_base<T>>(new any_gradients_of(gradients));
  }
  void visit(const visitor_reference<T>& visitor) override { gradients.visit_parameters(visitor); }
  Gradients gradients;
};

/// A layer behind virtual functions, for one type of context.
template <execution_context Context, class T> struct any_layer_base {
  virtual ~any_layer_base() = default;
  [[nodiscard]] virtual owned<any_layer_base> clone() const = 0;
  [[nodiscard]] virtual std::size_t d_model() const noexcept = 0;
  [[nodiscard]] virtual std::size_t max_selected() const = 0;
  [[nodiscard]] virtual bool reads_router_x() const noexcept = 0;
  [[nodiscard]] virtual std::size_t router_d_model() const = 0;
  [[nodiscard]] virtual vector_view<const std::size_t> widths() const noexcept = 0;
  [[nodiscard]] virtual bool trainable() const noexcept = 0;
  [[nodiscard]] virtual layer_cost cost() const = 0;
  [[nodiscard]] virtual tape<T> make_tape(std::size_t tokens) const = 0;
  [[nodiscard]] virtual owned<any_gradients_base<T>> make_gradients() const = 0;
  [[nodiscard]] virtual std::size_t workspace_bytes(const Context& ctx, std::size_t tokens, bool padding) const = 0;
  [[nodiscard]] virtual routed_batch<T> routing(tape<T>& tape) const = 0;
  virtual void visit(const visitor_reference<T>& visitor) = 0;
  virtual void visit(const visitor_reference<const T>& visitor) const = 0;
  virtual void forward(const Context& ctx, matrix_view<const T> x, matrix_view<T> y,
                       const routing_inputs<T>& inputs) const = 0;
  virtual void forward(const Context& ctx, matrix_view<const T> x, matrix_view<T> y, tape<T>& tape,
                       const routing_inputs<T>& inputs) const = 0;
  virtual void backward(const Context& ctx, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
                        matrix_view<T> d_router_x, any_gradients_base<T>& gradients) const = 0;
};

template <execution_context Context, class Layer>
struct any_layer_of final : any_layer_base<Context, typename Layer::value_type> {
  using T = typename Layer::value_type;
  using base = any_layer_base<Context, T>;
  static constexpr const char* packed = "the experts of this layer are packed for inference and have no parameters to "
                                        "train: call it on the layer that was packed";

  explicit any_layer_of(Layer from) : layer(std::move(from)) {}

  [[nodiscard]] owned<base> clone() const override { return owned<base>(new any_layer_of(layer)); }
  [[nodiscard]] std::size_t d_model() const noexcept override { return layer.d_model(); }
  [[nodiscard]] std::size_t max_selected() const override { return layer.router().max_selected(); }
  [[nodiscard]] bool reads_router_x() const noexcept override { return layer.reads_router_x(); }
  [[nodiscard]] std::size_t router_d_model() const override { return layer.router().d_model(); }
  [[nodiscard]] vector_view<const std::size_t> widths() const noexcept override { return layer.widths(); }
  [[nodiscard]] bool trainable() const noexcept override { return Layer::trainable; }
  [[nodiscard]] layer_cost cost() const override { return layer.cost(); }
  [[nodiscard]] tape<T> make_tape(std::size_t tokens) const override { return layer.make_tape(tokens); }
  [[nodiscard]] owned<any_gradients_base<T>> make_gradients() const override {
    if constexpr (Layer::trainable)
      return owned<any_gradients_base<T>>(
          new any_gradients_of<T, typename Layer::gradients_type>(layer.make_gradients()));
    else
      fail(std::string("make_gradients: ") + packed);
  }
  [[nodiscard]] std::size_t workspace_bytes(const Context& ctx, std::size_t tokens, bool padding) const override {
    return layer.workspace_bytes(ctx, tokens, padding);
  }
  [[nodiscard]] routed_batch<T> routing(tape<T>& tape) const override { return layer.routing(tape); }
  void visit(const visitor_reference<T>& visitor) override { visit_in(layer, visitor); }
  void visit(const visitor_reference<const T>& visitor) const override { visit_in(layer, visitor); }
  void forward(const Context& ctx, matrix_view<const T> x, matrix_view<T> y,
               const routing_inputs<T>& inputs) const override {
    layer.forward(ctx, x, y, inputs);
  }
  void forward(const Context& ctx, matrix_view<const T> x, matrix_view<T> y, tape<T>& tape,
               const routing_inputs<T>& inputs) const override {
    layer.forward(ctx, x, y, tape, inputs);
  }
  void backward([[maybe_unused]] const Context& ctx, [[maybe_unused]] tape<T>& tape,
                [[maybe_unused]] matrix_view<const T> dy, [[maybe_unused]] matrix_view<T> dx,
                [[maybe_unused]] matrix_view<T> d_router_x,
                [[maybe_unused]] any_gradients_base<T>& gradients) const override {
    if constexpr (Layer::trainable) {
      using gradients_type = typename Layer::gradients_type;
      require(gradients.type == &type_mark<gradients_type>, "backward: the gradients are of another kind of layer");
      layer.backward(ctx, tape, dy, dx, d_router_x,
                     static_cast<any_gradients_of<T, gradients_type>&>(gradients).gradients);
    } else {
      fail(std::string("backward: ") + packed);
    }
  }

  template <class Self, class Visitor>
  static void visit_in([[maybe_unused]] Self& self, [[maybe_unused]] const Visitor& visitor) {
    if constexpr (Layer::trainable)
      self.visit_parameters(visitor);
    else
      fail(std::string("visit_parameters: ") + packed);
  }

  Layer layer;
};
} // namespace detail

/// Gradients of an any_layer, made by it.
template <class T> class any_gradients {
public:
  explicit any_gradients(detail::owned<detail::any_gradients_base<T>> gradients) : gradients_(std::move(gradients)) {}

  template <class Visitor> void visit_parameters(Visitor&& visit) const { detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) { gradients_->visit(visit); }
  void set_zero() { hmoe::set_zero(*this); }
  [[nodiscard]] detail::any_gradients_base<T>& erased() noexcept { return *gradients_; }

private:
  detail::owned<detail::any_gradients_base<T>> gradients_;
};

/// An MoE layer whose experts and router are known at run time only, for contexts of one type: any moe_layer, as a
/// value. A pass costs one virtual call more than that of the layer itself and gives the same bits. Packed layers are
/// for inference: trainable() is false, and make_gradients, visit_parameters and backward are an hmoe::error. What a
/// pass routed where is in a tape (tape.trace(), tape.assignment()).
///   any_layer<decltype(ctx)> layer{moe_layer{…}};
template <execution_context Context, float_or_double T = float> class any_layer {
public:
  using value_type = T;
  using gradients_type = any_gradients<T>;
  using context_type = Context;

  template <class Experts, class Router, class Dispatch>
    requires std::same_as<typename Experts::value_type, T>
  explicit any_layer(moe_layer<Experts, Router, Dispatch> layer)
      : layer_(new detail::any_layer_of<Context, moe_layer<Experts, Router, Dispatch>>(std::move(layer))) {}

  [[nodiscard]] std::size_t d_model() const noexcept { return layer_->d_model(); }
  /// Number of experts, shared ones included.
  [[nodiscard]] std::size_t size() const noexcept { return widths().size(); }
  /// The most experts that a token can get.
  [[nodiscard]] std::size_t max_selected() const { return layer_->max_selected(); }
  /// Whether the router reads routing_inputs::router_x [T × router_d_model()] in place of x.
  [[nodiscard]] bool reads_router_x() const noexcept { return layer_->reads_router_x(); }
  [[nodiscard]] std::size_t router_d_model() const { return layer_->router_d_model(); }
  [[nodiscard]] vector_view<const std::size_t> widths() const noexcept { return layer_->widths(); }
  [[nodiscard]] bool trainable() const noexcept { return layer_->trainable(); }
  [[nodiscard]] layer_cost cost() const& HMOE_LIFETIMEBOUND { return layer_->cost(); }
  template <class Layer = any_layer> layer_cost cost() const&& {
    static_assert(
        !std::same_as<Layer, any_layer>,
        "hmoe::any_layer: cost() of a temporary layer, and its costs are read from it: give the layer a name");
    return {};
  }
  [[nodiscard]] tape<T> make_tape(std::size_t max_tokens) const { return layer_->make_tape(max_tokens); }
  [[nodiscard]] gradients_type make_gradients() const { return gradients_type(layer_->make_gradients()); }
  [[nodiscard]] std::size_t workspace_bytes(const Context& ctx, std::size_t tokens, bool some_padding = false) const {
    return layer_->workspace_bytes(ctx, tokens, some_padding);
  }
  [[nodiscard]] routed_batch<T> routing(tape<T>& tape) const { return layer_->routing(tape); }
  template <class Visitor> void visit_parameters(Visitor&& visit) const {
    std::as_const(*layer_).visit(detail::visitor_reference<const T>(detail::read_with(visit)));
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    layer_->visit(detail::visitor_reference<T>(visit));
  }
  void append_parameters(gradients_type& gradients, std::vector<parameter<T>>& list, std::string_view prefix = "") {
    hmoe::append_parameters<T>(*this, gradients, prefix, list);
  }

  /// As moe_layer's.
  void forward(const Context& ctx, matrix_view<const T> x, matrix_view<T> y,
               const routing_inputs<T>& inputs = {}) const {
    layer_->forward(ctx, x, y, inputs);
  }
  void forward(const Context& ctx, matrix_view<const T> x, matrix_view<T> y, tape<T>& tape,
               const routing_inputs<T>& inputs = {}) const {
    layer_->forward(ctx, x, y, tape, inputs);
  }
  void backward(const Context& ctx, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
                gradients_type& gradients) const {
    layer_->backward(ctx, tape, dy, dx, {}, gradients.erased());
  }
  void backward(const Context& ctx, tape<T>& tape, matrix_view<const T> dy, matrix_view<T> dx,
                matrix_view<T> d_router_x, gradients_type& gradients) const {
    layer_->backward(ctx, tape, dy, dx, d_router_x, gradients.erased());
  }

private:
  detail::owned<detail::any_layer_base<Context, T>> layer_;
};

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
