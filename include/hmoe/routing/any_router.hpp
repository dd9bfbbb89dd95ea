// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/description.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/owned.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/core/type_identity.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/dry_context.hpp>
#include <hmoe/execution/observed.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/routing/accepted_batch.hpp>
#include <hmoe/routing/router_policy.hpp>

#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

namespace hmoe::routing {

/// A router whose kind is chosen at run time: holds any hmoe::router_policy of this value_type and models it itself. A
/// layer with it is one type, compiled once, whichever router it gets; the place that makes the router compiles its
/// passes, for this Context and no other:
///   using chosen = routing::any_router<float, context<backends::simd<>, executors::openmp>>;
///   moe_layer layer{expert_set{bank}, by_p ? chosen(top_p_router<float>(d, n, p)) : chosen(top_k_router<float>(d, n,
///   2))};
/// Results, trace and what a pass takes from the workspace are those of the held router, bit for bit; a pass costs one
/// virtual call. Copies are deep. The gradients of one are a copy of it, so they hold a router of the same kind. Of a
/// moved-from object nothing but destruction and assignment is allowed.
template <float_or_double T, execution_context Context> class any_router {
public:
  using value_type = T;
  using context_type = Context;

  template <class R>
    requires(!std::same_as<std::remove_cvref_t<R>, any_router>) && router_policy<std::remove_cvref_t<R>>
  any_router(R&& held) : held_(new model<std::remove_cvref_t<R>>(std::forward<R>(held))) {
    static_assert(
        std::same_as<typename std::remove_cvref_t<R>::value_type, T>,
        "hmoe::routing::any_router: the router's value_type differs from T: use any_router<float, Context> for "
        "a router of float, any_router<double, Context> for one of double");
  }

  [[nodiscard]] std::size_t d_model() const { return held_->d_model(); }
  [[nodiscard]] std::size_t size() const { return held_->size(); }
  [[nodiscard]] std::size_t routed() const { return held_->routed(); }
  [[nodiscard]] std::size_t max_selected() const { return held_->max_selected(); }
  [[nodiscard]] std::size_t saved_per_token() const { return held_->saved_per_token(); }
  [[nodiscard]] bool weights_on_input() const { return held_->weights_on_input(); }
  [[nodiscard]] bool reads_router_x() const { return held_->reads_router_x(); }
  [[nodiscard]] bool limits_choices() const { return held_->limits_choices(); }
  [[nodiscard]] routing::accepted_batch accepted_batch() const { return held_->accepted_batch(); }
  /// The held router with its policies and their numbers (descriptions::describe_router).
  [[nodiscard]] std::string identity() const { return held_->identity(); }

  template <execution_context C>
  void forward(const C& ctx, matrix_view<const T> x, router_trace<T>& trace, assignment<T>& assigned) const {
    with_context(ctx, probes::direction::forward,
                 [&](const pass_context& in) { held_->forward(in, x, trace, assigned); });
  }
  /// hmoe::error where `gradients` hold a router of another kind or size.
  template <execution_context C>
  void backward(const C& ctx, matrix_view<const T> x, const router_trace<T>& trace, const assignment<T>& assigned,
                vector_view<const T> d_weights, matrix_view<T> dx, any_router& gradients) const {
    check_gradients(gradients);
    with_context(ctx, probes::direction::backward, [&](const pass_context& in) {
      held_->backward(in, x, trace, assigned, d_weights, dx, *gradients.held_);
    });
  }
  void check_gradients(const any_router& gradients) const {
    held_->check_kind(*gradients.held_);
    require(gradients.size() == size() && gradients.d_model() == d_model(),
            "any_router: the gradients are of a router for ", gradients.size(), " experts and d_model ",
            gradients.d_model(), ", this one is for ", size(), " and ", d_model());
  }
  void lay_out_forward(const dry_context<Context>& dry, std::size_t tokens, bool some_padding) const {
    held_->lay_out_forward(dry, tokens, some_padding);
  }
  void lay_out_backward(const dry_context<Context>& dry, std::size_t tokens, bool some_padding) const {
    held_->lay_out_backward(dry, tokens, some_padding);
  }
  /// Never valid: otherwise workspace_bytes of another context would leave out the router.
  template <execution_context C>
    requires(!std::same_as<C, Context>)
  void lay_out_forward(const dry_context<C>&, std::size_t, bool) const {
    explain_context<C>();
  }
  template <execution_context C>
    requires(!std::same_as<C, Context>)
  void lay_out_backward(const dry_context<C>&, std::size_t, bool) const {
    explain_context<C>();
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) const { hmoe::detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    held_->visit_parameters([&](const parameter_info& info, matrix_view<T> view) { visit(info, view); });
  }
  void initialize(seed key, std::uint64_t stream, const initialization& options) {
    held_->initialize(key, stream, options);
  }

  /// The held router, or nullptr when it is of another kind.
  template <router_policy R>
    requires std::same_as<typename R::value_type, T>
  [[nodiscard]] R* get_if() noexcept {
    auto* held = held_->template as<R>();
    return held == nullptr ? nullptr : &held->router;
  }
  template <router_policy R>
    requires std::same_as<typename R::value_type, T>
  [[nodiscard]] const R* get_if() const noexcept {
    const auto* held = std::as_const(*held_).template as<R>();
    return held == nullptr ? nullptr : &held->router;
  }

private:
  using visitor = hmoe::detail::visitor_reference<T>;
  /// What a layer gives its router: where there is a probe, a context that places the events.
  using pass_context =
      std::conditional_t<probes::observed<Context>, probes::placed_context<Context, probes::part_of>, Context>;

  template <class C> static void explain_context() {
    static_assert(std::same_as<C, Context>,
                  "hmoe::routing::any_router: this router runs in contexts of its type Context only, which its passes "
                  "were compiled for: use a context of this type, or any_router<T, Context> with the type of yours");
  }
  template <class C, class F> static void with_context(const C& ctx, probes::direction direction, const F& run) {
    if constexpr (std::same_as<C, pass_context>)
      run(ctx);
    else if constexpr (std::same_as<C, Context>)
      run(probes::placed(ctx, probes::part_of{probes::stage::route, direction}));
    else
      explain_context<C>();
  }

  template <class R> struct model;

  struct interface {
    explicit interface(const void* mark) noexcept : held_type(mark) {}
    interface(const interface&) = default;
    interface& operator=(const interface&) = delete;
    virtual ~interface() = default;
    template <class R> [[nodiscard]] model<R>* as() noexcept {
      return held_type == &hmoe::detail::type_mark<R> ? static_cast<model<R>*>(this) : nullptr;
    }
    template <class R> [[nodiscard]] const model<R>* as() const noexcept {
      return held_type == &hmoe::detail::type_mark<R> ? static_cast<const model<R>*>(this) : nullptr;
    }
    [[nodiscard]] virtual hmoe::detail::owned<interface> clone() const = 0;
    [[nodiscard]] virtual std::size_t d_model() const = 0;
    [[nodiscard]] virtual std::size_t size() const = 0;
    [[nodiscard]] virtual std::size_t routed() const = 0;
    [[nodiscard]] virtual std::size_t max_selected() const = 0;
    [[nodiscard]] virtual std::size_t saved_per_token() const = 0;
    [[nodiscard]] virtual bool weights_on_input() const = 0;
    [[nodiscard]] virtual bool reads_router_x() const = 0;
    [[nodiscard]] virtual bool limits_choices() const = 0;
    [[nodiscard]] virtual routing::accepted_batch accepted_batch() const = 0;
    [[nodiscard]] virtual std::string identity() const = 0;
    virtual void forward(const pass_context& ctx, matrix_view<const T> x, router_trace<T>& trace,
                         assignment<T>& assigned) const = 0;
    virtual void backward(const pass_context& ctx, matrix_view<const T> x, const router_trace<T>& trace,
                          const assignment<T>& assigned, vector_view<const T> d_weights, matrix_view<T> dx,
                          interface& gradients) const = 0;
    virtual void check_kind(const interface& gradients) const = 0;
    virtual void lay_out_forward(const dry_context<Context>& dry, std::size_t tokens, bool some_padding) const = 0;
    virtual void lay_out_backward(const dry_context<Context>& dry, std::size_t tokens, bool some_padding) const = 0;
    virtual void visit_parameters(const visitor& visit) = 0;
    virtual void initialize(seed key, std::uint64_t stream, const initialization& options) = 0;

    const void* held_type; ///< address of the type_mark of the held router
  };

  template <class R> struct model final : interface {
    explicit model(R held) : interface(&hmoe::detail::type_mark<R>), router(std::move(held)) {}
    [[nodiscard]] hmoe::detail::owned<interface> clone() const override {
      return hmoe::detail::owned<interface>(new model(*this));
    }
    [[nodiscard]] std::size_t d_model() const override { return router.d_model(); }
    [[nodiscard]] std::size_t size() const override { return router.size(); }
    [[nodiscard]] std::size_t routed() const override { return router.routed(); }
    [[nodiscard]] std::size_t max_selected() const override { return router.max_selected(); }
    [[nodiscard]] std::size_t saved_per_token() const override { return router.saved_per_token(); }
    [[nodiscard]] bool weights_on_input() const override { return router.weights_on_input(); }
    [[nodiscard]] bool limits_choices() const override {
      if constexpr (requires { router.limits_choices(); })
        return router.limits_choices();
      else
        return false;
    }
    [[nodiscard]] bool reads_router_x() const override {
      if constexpr (requires { router.reads_router_x(); })
        return router.reads_router_x();
      else
        return false;
    }
    [[nodiscard]] routing::accepted_batch accepted_batch() const override { return accepted_batch_of(router); }
    [[nodiscard]] std::string identity() const override { return descriptions::describe_router(router); }
    void forward(const pass_context& ctx, matrix_view<const T> x, router_trace<T>& trace,
                 assignment<T>& assigned) const override {
      router.forward(ctx, x, trace, assigned);
    }
    void backward(const pass_context& ctx, matrix_view<const T> x, const router_trace<T>& trace,
                  const assignment<T>& assigned, vector_view<const T> d_weights, matrix_view<T> dx,
                  interface& gradients) const override {
      router.backward(ctx, x, trace, assigned, d_weights, dx, gradients.template as<R>()->router);
    }
    void check_kind(const interface& gradients) const override {
      require(gradients.template as<R>() != nullptr, "any_router: the gradients of a ", hmoe::detail::type_name<R>(),
              " hold a router of another kind: make them by copying the router, or by layer.make_gradients()");
    }
    void lay_out_forward(const dry_context<Context>& dry, std::size_t tokens, bool some_padding) const override {
      if constexpr (requires { router.lay_out_forward(dry, tokens, some_padding); })
        router.lay_out_forward(dry, tokens, some_padding);
    }
    void lay_out_backward(const dry_context<Context>& dry, std::size_t tokens, bool some_padding) const override {
      if constexpr (requires { router.lay_out_backward(dry, tokens, some_padding); })
        router.lay_out_backward(dry, tokens, some_padding);
    }
    void visit_parameters(const visitor& visit) override { router.visit_parameters(visit); }
    void initialize(seed key, std::uint64_t stream, const initialization& options) override {
      router.initialize(key, stream, options);
    }
    R router;
  };

  hmoe::detail::owned<interface> held_;
};

} // namespace hmoe::routing

#include <hmoe/core/macros_on.hpp>
