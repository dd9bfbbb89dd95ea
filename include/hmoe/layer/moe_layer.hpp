// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/core/row_limits.hpp>
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/cost_model.hpp>
#include <hmoe/dispatch/dispatcher.hpp>
#include <hmoe/dispatch/explanation.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/dry_context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/execution/observed.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/layer/argument_checks.hpp>
#include <hmoe/layer/cost.hpp>
#include <hmoe/routing/router.hpp>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe {

namespace detail {
template <class E> inline constexpr bool is_expert_set = false;
template <class... Banks> inline constexpr bool is_expert_set<expert_set<Banks...>> = true;

/// The experts that run are those that the router chose.
struct chosen_ids {
  template <execution_context Context, class T> static void change(const Context&, tape<T>&) noexcept {}
  template <class T> static void change_again(tape<T>&) noexcept {}
  template <class T> static void restore(tape<T>&) noexcept {}
};
} // namespace detail

/// The gradients of a layer: objects of the same types and shapes as its parameters.
template <class Experts, class Router> struct layer_gradients {
  Experts experts;
  Router router;

  template <class Visitor> void visit_parameters(Visitor&& visit) const { hmoe::detail::visit_as_const(*this, visit); }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    experts.visit_parameters(visit);
    router.visit_parameters(visit);
  }
  void set_zero() { hmoe::set_zero(*this); }
};

/// A Mixture-of-Experts layer: y_t = Σ_{e ∈ E_t} w_{t,e} · expert_e(x_t), where the router gives each token t its
/// experts E_t and weights. Parts: an expert_set, a router, and a dispatch strategy. The layer holds parameters only;
/// scratch memory is in the context and the values that backward needs are in the tape, so one layer serves many
/// threads.
template <class Experts, class Router, class Dispatch = dispatch::sorted<>> class moe_layer {
  static_assert(
      detail::is_expert_set<Experts>,
      "hmoe::moe_layer: Experts is not an hmoe::expert_set: wrap the banks, as in expert_set{bank_a, bank_b}");
  static_assert(router_policy<Router>,
                "hmoe::moe_layer: Router does not model hmoe::router_policy: use routing::router<Score, "
                "Selection, Weighting>, or see the requirements in hmoe/routing/router_policy.hpp");

public:
  using value_type = typename Experts::value_type;
  using experts_type = Experts;
  using router_type = Router;
  using dispatch_type = Dispatch;
  using gradients_type = layer_gradients<Experts, Router>;
  /// False where some experts are packed: then the layer is for inference.
  static constexpr bool trainable = Experts::trainable;
  static_assert(std::same_as<value_type, typename Router::value_type>,
                "hmoe::moe_layer: Experts and Router differ in value_type: give both float, or both double");

  moe_layer(Experts experts, Router router, Dispatch dispatch = {})
      : experts_(std::move(experts)), router_(std::move(router)), dispatch_(std::move(dispatch)) {
    join();
  }

  [[nodiscard]] std::size_t d_model() const noexcept { return experts_.d_model(); }
  [[nodiscard]] std::size_t size() const noexcept { return experts_.size(); }
  /// Whether the router reads routing_inputs::router_x [T×router().d_model()] in place of x (routing::own_input).
  [[nodiscard]] bool reads_router_x() const noexcept {
    if constexpr (requires { router_.reads_router_x(); })
      return router_.reads_router_x();
    else
      return false;
  }
  [[nodiscard]] Experts& experts() noexcept { return experts_; }
  [[nodiscard]] const Experts& experts() const noexcept { return experts_; }
  [[nodiscard]] Router& router() noexcept { return router_; }
  [[nodiscard]] const Router& router() const noexcept { return router_; }
  [[nodiscard]] const Dispatch& dispatch_strategy() const noexcept { return dispatch_; }
  /// Another one of the same type, and experts of the same number that may have other memory, for instance those of
  /// another placement on several ranks (hmoe/parallel/rebalance.hpp).
  void set_dispatch_strategy(Dispatch dispatch) {
    dispatch_ = std::move(dispatch);
    join();
  }
  /// The same layer with other experts of the same d_model, packed ones for instance.
  template <class Others> [[nodiscard]] moe_layer<Others, Router, Dispatch> with_experts(Others experts) const {
    return {std::move(experts), router_, dispatch_};
  }
  /// [N] hidden width of each expert, on whichever rank it is.
  [[nodiscard]] vector_view<const std::size_t> widths() const noexcept { return widths_; }

  /// Draws all weights anew (see hmoe::initialization); the same seed gives the same bits everywhere.
  /// hmoe::error for options that are not finite.
  void initialize(seed key, const initialization& options = {}) {
    static_assert(trainable, "hmoe::moe_layer: initialize: the experts of this layer are packed for inference and have "
                             "no parameters to train: call it on the layer that was packed");
    if constexpr (requires { dispatch_.join_initialization(key, options); })
      dispatch_.join_initialization(key, options);
    require(std::isfinite(options.output_gain) && std::isfinite(options.router_stddev),
            "initialize with output_gain = ", options.output_gain, " and router_stddev = ", options.router_stddev,
            ": both must be finite");
    if constexpr (trainable)
      experts_.initialize(key, 0, options);
    router_.initialize(key, experts_.size() * experts::streams_per_expert, options);
  }

  /// f(parameter_info, matrix_view<T>) for each tensor, in an order that never changes.
  template <class Visitor> void visit_parameters(Visitor&& visit) const {
    const auto read = hmoe::detail::read_with(visit);
    visit_in(*this, hmoe::detail::visitor_reference<const value_type>(read));
  }
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit_in(*this, hmoe::detail::visitor_reference<value_type>(visit));
  }
  /// Zeros in the shape of the parameters.
  [[nodiscard]] gradients_type make_gradients() const {
    static_assert(trainable, "hmoe::moe_layer: make_gradients: the experts of this layer are packed for inference and "
                             "have no parameters to train: call it on the layer that was packed");
    gradients_type gradients{experts_, router_};
    if constexpr (trainable)
      gradients.set_zero();
    return gradients;
  }
  /// Appends the layer's tensors with their gradients, as optimisers take them; names get the prefix.
  void append_parameters(gradients_type& gradients, std::vector<parameter<value_type>>& list,
                         std::string_view prefix = "") {
    static_assert(trainable, "hmoe::moe_layer: append_parameters: the experts of this layer are packed for inference "
                             "and have no parameters to train: call it on the layer that was packed");
    if constexpr (trainable)
      hmoe::append_parameters<value_type>(*this, gradients, prefix, list);
  }

  /// A tape with room for batches of up to max_tokens.
  [[nodiscard]] tape<value_type> make_tape(std::size_t max_tokens) const {
    return make_tape_with(experts_, max_tokens);
  }
  /// For the passes with other experts.
  [[nodiscard]] tape<value_type> make_tape_with(const Experts& experts, std::size_t max_tokens) const {
    const batch_limits limits = limits_of(experts, max_tokens, false);
    const std::size_t entries = limits.entries, slots = dispatch_.slots(experts, limits), n = experts.size();
    tape<value_type> tape;
    tape.reserve(max_tokens, d_model(), n, router_.saved_per_token(), entries, slots,
                 row_limits{slots, max_tokens}.most(n, [&](std::size_t e) { return experts.saved_per_row(e); }));
    return tape;
  }

  /// Inference: y[T×d] = layer(x[T×d]). x and y must not overlap. `inputs`: further data that some routers read.
  template <execution_context Context>
  void forward(const Context& ctx, matrix_view<const value_type> x, matrix_view<value_type> y,
               const routing_inputs<value_type>& inputs = {}) const {
    forward_with(ctx, experts_, x, y, inputs);
  }

  /// Training: as above, and the tape keeps what backward needs.
  template <execution_context Context>
  void forward(const Context& ctx, matrix_view<const value_type> x, matrix_view<value_type> y, tape<value_type>& tape,
               const routing_inputs<value_type>& inputs = {}) const {
    forward_with(ctx, experts_, x, y, tape, inputs);
  }

  /// The backward pass from dy = ∂L/∂y: dx = ∂L/∂x, gradients += ∂L/∂parameters; includes what auxiliary losses left in
  /// the tape's trace. dx must not overlap dy.
  template <execution_context Context>
  void backward(const Context& ctx, tape<value_type>& tape, matrix_view<const value_type> dy,
                matrix_view<value_type> dx, gradients_type& gradients) const {
    static_assert(trainable, "hmoe::moe_layer: backward: the experts of this layer are packed for inference and have "
                             "no parameters to train: call it on the layer that was packed");
    backward_with(ctx, experts_, tape, dy, dx, gradients.experts, gradients.router);
  }
  /// For routers that read a tensor of their own: dx = ∂L/∂x is of the experts, d_router_x = ∂L/∂router_x
  /// [T×router().d_model()] of the router. The router_x of the forward pass must be there still. d_router_x must not
  /// overlap dy, dx or router_x.
  template <execution_context Context>
  void backward(const Context& ctx, tape<value_type>& tape, matrix_view<const value_type> dy,
                matrix_view<value_type> dx, matrix_view<value_type> d_router_x, gradients_type& gradients) const {
    static_assert(trainable, "hmoe::moe_layer: backward: the experts of this layer are packed for inference and have "
                             "no parameters to train: call it on the layer that was packed");
    backward_with(ctx, experts_, tape, dy, dx, gradients.experts, gradients.router, d_router_x);
  }

  /// The passes with other experts in place of the layer's own, of the same type, number and d_model: views of some of
  /// their neurons, for instance (hmoe/compress/nested.hpp). `gradients` are of those experts. `ids`: which of several
  /// experts in place of each runs, where there are several times as many (hmoe/compress/nested_levels.hpp); it changes
  /// the ids of the tape's assignment before dispatch and restores them after it.
  template <execution_context Context, class Ids = detail::chosen_ids>
  void forward_with(const Context& ctx, const Experts& experts, matrix_view<const value_type> x,
                    matrix_view<value_type> y, const routing_inputs<value_type>& inputs = {},
                    const Ids& ids = {}) const {
    run_pass([&] {
      const detail::argument_checks checks(*this);
      checks.shapes(x, y, "y");
      checks.inputs(inputs, y);
      checks.experts(experts.size(), experts.d_model(), has_several<Ids>);
      [[maybe_unused]] probes::watch<Context> watched;
      if constexpr (probes::observed<Context>)
        watched.begin(ctx, {probes::stage::pass, probes::direction::forward, x.rows()});
      const workspace::scope scope(ctx.workspace());
      tape<value_type> tape(&ctx.workspace(), false);
      run_forward(ctx, experts, x, y, tape, inputs, ids);
    });
  }
  template <execution_context Context, class Ids = detail::chosen_ids>
  void forward_with(const Context& ctx, const Experts& experts, matrix_view<const value_type> x,
                    matrix_view<value_type> y, tape<value_type>& tape, const routing_inputs<value_type>& inputs = {},
                    const Ids& ids = {}) const {
    run_pass([&] {
      const detail::argument_checks checks(*this);
      checks.shapes(x, y, "y");
      checks.inputs(inputs, y);
      checks.experts(experts.size(), experts.d_model(), has_several<Ids>);
      require(tape.recording(), "this tape does not record: take one from layer.make_tape(tokens)");
      [[maybe_unused]] probes::watch<Context> watched;
      if constexpr (probes::observed<Context>)
        watched.begin(ctx, {probes::stage::pass, probes::direction::forward, x.rows()});
      tape.set_complete(false);
      const workspace::scope scope(ctx.workspace());
      run_forward(ctx, experts, x, y, tape, inputs, ids);
      tape.input().resize_for_overwrite(x.rows(), x.cols());
      hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t) {
        std::copy(x.row(t).begin(), x.row(t).end(), tape.input().row(t).begin());
      });
      tape.set_complete(true);
    });
  }
  template <execution_context Context, class Ids = detail::chosen_ids>
  void backward_with(const Context& ctx, const Experts& experts, tape<value_type>& tape,
                     matrix_view<const value_type> dy, matrix_view<value_type> dx, Experts& gradients,
                     Router& router_gradients, matrix_view<value_type> d_router_x = {}, const Ids& ids = {}) const {
    run_pass([&] {
      const detail::argument_checks checks(*this);
      checks.experts(experts.size(), experts.d_model(), has_several<Ids>);
      require(tape.complete(), "backward needs a tape that a forward pass of this layer has filled");
      require(dy.rows() == tape.input().rows(), "dy has ", dy.rows(), " rows, the tape holds ", tape.input().rows(),
              " tokens");
      checks.shapes(dy, dx, "dx");
      checks.d_router_x(tape, dy, dx, d_router_x);
      checks.tape_of_layer(tape);
      checks.gradients_of(experts, gradients);
      if constexpr (requires { router_.check_gradients(router_gradients); })
        router_.check_gradients(router_gradients);
      [[maybe_unused]] probes::watch<Context> watched;
      if constexpr (probes::observed<Context>)
        watched.begin(ctx, {probes::stage::pass, probes::direction::backward, dy.rows()});
      const workspace::scope scope(ctx.workspace());
      buffer<value_type> d_weights(tape.assignment().size(), &ctx.workspace());
      ids.change_again(tape);
      if constexpr (trainable)
        dispatch_.backward(ctx, experts, tape, dy, dx, d_weights.view(), gradients);
      ids.restore(tape);
      constexpr auto direction = probes::direction::backward;
      [[maybe_unused]] probes::watch<Context> watched_router;
      if constexpr (probes::observed<Context>)
        watched_router.begin(ctx, routing_of(direction, dy.rows()));
      hmoe::for_each_row(ctx, d_router_x.rows(),
                         [&](std::size_t t) { std::ranges::fill(d_router_x.row(t), value_type(0)); });
      const bool own = reads_router_x();
      const auto& trace = std::as_const(tape).trace();
      router_.backward(probes::placed(ctx, probes::part_of{probes::stage::route, direction}),
                       own ? trace.inputs().router_x : std::as_const(tape).input().view(), trace,
                       std::as_const(tape).assignment(), std::as_const(d_weights).view(), own ? d_router_x : dx,
                       router_gradients);
    });
  }

  /// Never valid: these say in words what is wrong with the arguments.
  template <class Context, class X, class Y, class... Rest>
    requires(!detail::pass_arguments<value_type, Context, X, Y>)
  void forward(const Context&, X&&, Y&&, Rest&&...) const {
    detail::explain_arguments<value_type, Context, X, Y>();
  }
  template <class Context, class Tape, class Dy, class Dx, class... Rest>
    requires(!detail::pass_arguments<value_type, Context, Dy, Dx>)
  void backward(const Context&, Tape&&, Dy&&, Dx&&, Rest&&...) const {
    detail::explain_arguments<value_type, Context, Dy, Dx>();
  }

  /// What auxiliary losses and statistics look at; objective::evaluate(layer, tape) calls it.
  [[nodiscard]] routed_batch<value_type> routing(tape<value_type>& tape) const {
    require(tape.complete(), "an auxiliary loss needs a tape that a forward pass of this layer has filled");
    return {tape.trace(), tape.assignment(), widths().subview(0, router_.routed())};
  }

  /// FLOPs, parameters and bytes, per expert and (with an assignment) per token. Of the layer, which must outlive them.
  [[nodiscard]] layer_cost cost() const& HMOE_LIFETIMEBOUND {
    layer_cost result{.experts = expert_costs(experts_)};
    for_each_router_tensor([&](std::size_t parameters, double flops_per_token) {
      result.router_parameters += parameters;
      result.router_flops_per_token += flops_per_token;
    });
    result.router_bytes = result.router_parameters * sizeof(value_type);
    return result;
  }
  template <class Layer = moe_layer> layer_cost cost() const&& {
    static_assert(
        !std::same_as<Layer, moe_layer>,
        "hmoe::moe_layer: cost() of a temporary layer, and its costs are read from it: give the layer a name");
    return {};
  }

  /// Predicted times of all dropless strategies for a batch, in parts, and what dispatch::automatic would take: the
  /// layer's own, or one without a table where the layer has another strategy. print(layer.explain(ctx,
  /// tape.assignment()).text()). hmoe::error where the assignment names experts that the layer lacks.
  template <execution_context Context>
  [[nodiscard]] hmoe::dispatch::explanation explain(const Context& ctx, const assignment<value_type>& assigned,
                                                    bool training = false,
                                                    hmoe::dispatch::machine_limits machine = {}) const {
    std::vector<hmoe::dispatch::expert_work> work(size());
    const auto load = hmoe::dispatch::load_of(ctx, experts_, assigned, training,
                                              vector_view<hmoe::dispatch::expert_work>(work.data(), work.size()));
    hmoe::dispatch::explanation result;
    result.reason = "the cost model";
    if constexpr (requires { dispatch_.pick(ctx, experts_, load); }) {
      machine = dispatch_.machine();
      result.picked = dispatch_.pick(ctx, experts_, load);
      if (!dispatch_.table().empty())
        result.reason = "the table of measured times";
    } else {
      result.picked = hmoe::dispatch::quickest(load, machine);
    }
    for (std::size_t i = 0; i < hmoe::dispatch::strategy_count; ++i) {
      const auto s = static_cast<hmoe::dispatch::strategy>(i);
      result.lines.push_back({s, hmoe::dispatch::predict(s, load, machine)});
    }
    return result;
  }

  /// Bytes of workspace that suffice for every pass of this context over up to `tokens` tokens, forward or backward:
  /// reserve them and no pass allocates. They are what the passes would take for the batch that needs most, where every
  /// token gets max_selected() experts. `some_padding`: whether routing_inputs::valid may mark tokens as padding.
  template <execution_context Context>
  [[nodiscard]] std::size_t workspace_bytes(const Context& ctx, std::size_t tokens, bool some_padding = false) const {
    return workspace_bytes_with(ctx, experts_, tokens, some_padding);
  }
  /// For the passes with other experts.
  template <execution_context Context>
  [[nodiscard]] std::size_t workspace_bytes_with(const Context& ctx, const Experts& experts, std::size_t tokens,
                                                 bool some_padding = false) const {
    const batch_limits limits = limits_of(experts, tokens, some_padding);
    const dry_context dry(ctx);
    lay_out_forward(dry, experts, dry.workspace(), false, limits);
    if constexpr (trainable) {
      workspace own_memory_of_tape{dry_run{}};
      lay_out_forward(dry, experts, own_memory_of_tape, true, limits);
      lay_out_backward(dry, experts, limits);
    }
    return dry.workspace().peak();
  }

private:
  /// Whether several of the given experts are in the place of each of the layer's.
  template <class Ids> static constexpr bool has_several = !std::same_as<Ids, detail::chosen_ids>;

  template <class Self, class T> static void visit_in(Self& self, hmoe::detail::visitor_reference<T> visit) {
    static_assert(trainable, "hmoe::moe_layer: visit_parameters: the experts of this layer are packed for inference "
                             "and have no parameters to train: call it on the layer that was packed");
    if constexpr (trainable)
      self.experts_.visit_parameters(visit);
    hmoe::detail::visit_part(self.router_, visit);
  }
  /// What a layer must be to run; strategies that run on several ranks hold theirs against one another.
  void join() {
    const auto check = [&] {
      detail::check_parts(experts_.size(), experts_.d_model(), router_.size(), router_.d_model(), reads_router_x());
    };
    if constexpr (requires { dispatch_.join(check, experts_, router_); }) {
      widths_ = dispatch_.join(check, experts_, router_);
    } else {
      check();
      widths_.clear();
      for (std::size_t e = 0; e < experts_.size(); ++e)
        widths_.push_back(experts_.width(e));
    }
  }
  /// Strategies that run on several ranks tell the others of an error, wherever in the pass this rank meets it.
  template <class Pass> void run_pass(const Pass& pass) const {
    if constexpr (requires { dispatch_.run_pass(pass); })
      dispatch_.run_pass(pass);
    else
      pass();
  }
  template <execution_context Context, class Ids>
  void run_forward(const Context& ctx, const Experts& experts, matrix_view<const value_type> x,
                   matrix_view<value_type> y, tape<value_type>& tape, const routing_inputs<value_type>& inputs,
                   const Ids& ids) const {
    static_assert(dispatcher<Dispatch, Context, Experts>,
                  "hmoe::moe_layer: Dispatch does not model hmoe::dispatcher: it needs forward, backward, slots, "
                  "lay_out_forward and lay_out_backward (see hmoe/dispatch/dispatcher.hpp); pass for instance "
                  "dispatch::sorted{}");
    tape.trace().resize(x.rows(), router_.routed(), router_.saved_per_token(), tape.recording());
    tape.trace().set_inputs(inputs);
    tape.set_weights_on_input(router_.weights_on_input());
    {
      constexpr auto direction = probes::direction::forward;
      [[maybe_unused]] probes::watch<Context> watched;
      if constexpr (probes::observed<Context>)
        watched.begin(ctx, routing_of(direction, x.rows()));
      router_.forward(probes::placed(ctx, probes::part_of{probes::stage::route, direction}),
                      reads_router_x() ? inputs.router_x : x, tape.trace(), tape.assignment());
    }
    ids.change(ctx, tape);
    dispatch_.forward(ctx, experts, x, y, tape);
    ids.restore(tape);
  }

  /// The event of routing `rows` tokens, with the FLOPs of cost(). Backward costs twice as much.
  [[nodiscard]] probes::event routing_of(probes::direction direction, std::size_t rows) const {
    probes::event result{probes::stage::route, direction, rows};
    const double passes = direction == probes::direction::forward ? 1 : 2, n = static_cast<double>(rows);
    for_each_router_tensor([&](std::size_t parameters, double flops_per_token) {
      result.bytes += passes * static_cast<double>(sizeof(value_type) * parameters);
      result.flops += passes * n * flops_per_token;
    });
    result.bytes += passes * sizeof(value_type) * n * static_cast<double>(router_.d_model() + 2 * router_.routed());
    return result;
  }
  /// f(parameters, FLOPs of a token) for each tensor of the router.
  template <class F> void for_each_router_tensor(const F& f) const {
    hmoe::detail::visit_as_const(router_, [&](const parameter_info& info, matrix_view<const value_type> view) {
      f(view.size(), info.decay ? 2.0 * static_cast<double>(view.size()) : 0.0); // biases take part in no product
    });
  }

  [[nodiscard]] batch_limits limits_of(const Experts& experts, std::size_t tokens, bool some_padding) const {
    return {tokens, tokens * router_.max_selected(), router_.routed() * (experts.size() / size()), some_padding};
  }
  // What run_forward and backward take.
  template <execution_context Context>
  void lay_out_forward(const Context& dry, const Experts& experts, workspace& memory_of_tape, bool recording,
                       const batch_limits& limits) const {
    const workspace::scope scope(dry.workspace()), scope_of_tape(memory_of_tape);
    tape<value_type> tape(&memory_of_tape, recording);
    tape.trace().resize_for_overwrite(limits.tokens, router_.routed(), router_.saved_per_token(), recording);
    tape.set_weights_on_input(router_.weights_on_input());
    tape.assignment().reserve(limits.tokens, limits.entries);
    if constexpr (requires { router_.lay_out_forward(dry, limits.tokens, limits.some_padding); })
      router_.lay_out_forward(dry, limits.tokens, limits.some_padding);
    dispatch_.lay_out_forward(dry, experts, tape, limits);
  }
  template <execution_context Context>
  void lay_out_backward(const Context& dry, const Experts& experts, const batch_limits& limits) const {
    const workspace::scope scope(dry.workspace());
    tape<value_type> tape;
    tape.set_weights_on_input(router_.weights_on_input());
    const buffer<value_type> d_weights(limits.entries, &dry.workspace());
    dispatch_.lay_out_backward(dry, experts, tape, limits);
    if constexpr (requires { router_.lay_out_backward(dry, limits.tokens, limits.some_padding); })
      router_.lay_out_backward(dry, limits.tokens, limits.some_padding);
  }

  Experts experts_;
  Router router_;
  Dispatch dispatch_;
  std::vector<std::size_t> widths_;
};

template <class Experts, class Router> moe_layer(Experts, Router) -> moe_layer<Experts, Router>;
template <class Experts, class Router, class Dispatch>
moe_layer(Experts, Router, Dispatch) -> moe_layer<Experts, Router, Dispatch>;

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
