// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/for_each_row.hpp>
#include <hmoe/routing/batch_selection.hpp>
#include <hmoe/routing/non_finite.hpp>
#include <hmoe/routing/padding.hpp>
#include <hmoe/routing/preference.hpp>
#include <hmoe/routing/projection.hpp>
#include <hmoe/routing/router_policy.hpp>
#include <hmoe/routing/score.hpp>
#include <hmoe/routing/score_function.hpp>
#include <hmoe/routing/scores/linear.hpp>
#include <hmoe/routing/selection.hpp>
#include <hmoe/routing/selections/threshold.hpp>
#include <hmoe/routing/selections/top_k.hpp>
#include <hmoe/routing/selections/top_p.hpp>
#include <hmoe/routing/shared/no_shared.hpp>
#include <hmoe/routing/weighting.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>

#include <algorithm>
#include <concepts>
#include <numeric>
#include <type_traits>
#include <utility>

namespace hmoe {

namespace routing {

namespace detail {
/// routing_inputs::most_experts: the ids that stay, in their order.
template <class T>
[[nodiscard]] index_t keep_most_probable(const router_trace<T>& trace, std::size_t token, vector_view<index_t> ids,
                                         index_t count) noexcept {
  const auto p = trace.probabilities().row(token);
  for (; trace.inputs().most_experts != 0 && count > trace.inputs().most_experts; --count) {
    index_t least = 0;
    for (index_t i = 1; i < count; ++i)
      if (preferred(p[ids[least]], ids[least], p[ids[i]], ids[i]))
        least = i;
    std::copy(ids.begin() + least + 1, ids.begin() + count, ids.begin() + least);
  }
  return count;
}
/// A selection may come from anywhere, so what it returns is checked; ids are put in ascending order.
inline void check_choice(std::size_t token, vector_view<index_t> ids, std::size_t count, std::size_t routed) {
  require(count <= ids.size(), "the selection chose ", count, " experts for token ", token, ", at most ", ids.size(),
          " are possible");
  std::sort(ids.begin(), ids.begin() + count);
  for (std::size_t i = 0; i < count; ++i) {
    require(ids[i] < routed, "the selection chose expert ", ids[i], " of ", routed, " for token ", token);
    require(i == 0 || ids[i] != ids[i - 1], "the selection chose expert ", ids[i], " twice for token ", token);
  }
}
} // namespace detail

/// The usual router, put together from small policies: Score makes logits and probabilities of a token, Selection picks
/// experts by probability (a token at a time, or over the whole batch), Weighting says how much each counts, and
/// Shared adds experts that every token gets.
template <class Score, class Selection, class Weighting = renormalized, class Shared = no_shared> class router {
public:
  static_assert(hmoe::score<Score>,
                "hmoe::routing::router: Score does not model hmoe::score: it needs value_type, d_model, size, "
                "saved_per_token, function, forward, backward, visit_parameters and initialize (see "
                "hmoe/routing/score.hpp); take for instance routing::linear<float>");
  using value_type = typename Score::value_type;
  static_assert(selection<Selection, value_type> || batch_selection<Selection, value_type>,
                "hmoe::routing::router: Selection models neither hmoe::selection (callable as count = selection("
                "vector_view<const T> p, vector_view<index_t> chosen), const) nor hmoe::batch_selection: see "
                "hmoe/routing/selection.hpp and batch_selection.hpp");
  static_assert(
      requires(const Weighting& w, vector_view<const value_type> in, vector_view<const index_t> chosen,
               vector_view<value_type> out) { w.forward(in, in, chosen, out); } ||
          hmoe::detail::wants_weighting_scratch<Weighting> || hmoe::detail::reads_weighting_row<Weighting>,
      "hmoe::routing::router: Weighting lacks forward(logits, p, chosen, w), const, which writes the weights "
      "of the chosen experts (see hmoe/routing/weighting.hpp)");
  static_assert(
      requires(const Weighting& w, vector_view<const value_type> in, vector_view<const index_t> chosen,
               vector_view<value_type> out) { w.backward(in, in, chosen, in, in, out, out); } ||
          hmoe::detail::wants_weighting_scratch<Weighting> || hmoe::detail::reads_weighting_row<Weighting>,
      "hmoe::routing::router: Weighting lacks backward(logits, p, chosen, w, dw, d_logits, d_p), const, which "
      "adds the derivatives to d_logits and d_p (see hmoe/routing/weighting.hpp)");
  static_assert(weighting<Weighting, value_type>,
                "hmoe::routing::router: Weighting does not model hmoe::weighting: it needs forward(logits, p, chosen, "
                "w) and backward(logits, p, chosen, w, dw, d_logits, d_p), const, each with a further argument "
                "scratch where it has scratch_size(N) (see hmoe/routing/weighting.hpp)");

  router(Score score, Selection select, Weighting weight = {}, Shared shared = {})
      : score_(std::move(score)), select_(std::move(select)), weight_(std::move(weight)), shared_(std::move(shared)) {
    if constexpr (requires { select_.validate(routed()); })
      select_.validate(routed());
    if constexpr (requires { weight_.validate(weighted()); })
      weight_.validate(weighted());
    if constexpr (requires { shared_.validate(d_model()); })
      shared_.validate(d_model());
  }
  router(std::size_t d_model, std::size_t experts, Selection select, Weighting weight, Shared shared)
      : router(Score(d_model, experts), std::move(select), std::move(weight), std::move(shared)) {}
  /// Shared experts, where Shared has any, as it makes them by default: for d_model where they have parameters.
  router(std::size_t d_model, std::size_t experts, Selection select = {}, Weighting weight = {})
      : router(Score(d_model, experts), std::move(select), std::move(weight), make_shared_policy(d_model)) {}

  [[nodiscard]] std::size_t d_model() const noexcept { return score_.d_model(); }
  [[nodiscard]] std::size_t routed() const noexcept { return score_.size(); }
  [[nodiscard]] std::size_t size() const noexcept { return routed() + shared_.size(); }
  [[nodiscard]] std::size_t max_selected() const { return max_chosen() + shared_.size(); }
  [[nodiscard]] std::size_t saved_per_token() const noexcept { return score_.saved_per_token(); }
  [[nodiscard]] static constexpr bool weights_on_input() noexcept {
    if constexpr (requires { Weighting::on_input; })
      return Weighting::on_input;
    else
      return false;
  }
  /// Whether it looks at routing_inputs::most_experts.
  [[nodiscard]] static constexpr bool limits_choices() noexcept { return true; }
  /// Whether x is routing_inputs::router_x [T×d_model()] in place of what the experts read.
  [[nodiscard]] static constexpr bool reads_router_x() noexcept { return routing::reads_router_x<Score>(); }
  [[nodiscard]] Score& score() noexcept { return score_; }
  [[nodiscard]] const Score& score() const noexcept { return score_; }
  [[nodiscard]] Selection& selection_policy() noexcept { return select_; }
  [[nodiscard]] const Selection& selection_policy() const noexcept { return select_; }
  [[nodiscard]] Weighting& weighting_policy() noexcept { return weight_; }
  [[nodiscard]] const Weighting& weighting_policy() const noexcept { return weight_; }
  [[nodiscard]] Shared& shared_policy() noexcept { return shared_; }
  [[nodiscard]] const Shared& shared_policy() const noexcept { return shared_; }

  [[nodiscard]] non_finite on_non_finite() const noexcept { return on_non_finite_; }
  void set_on_non_finite(non_finite policy) noexcept { on_non_finite_ = policy; }

  /// x[T×d] → trace (logits, probabilities, counts) and assignment.
  template <execution_context Context>
  void forward(const Context& ctx, matrix_view<const value_type> x, router_trace<value_type>& trace,
               assignment<value_type>& assigned) const {
    const std::size_t tokens = x.rows(), most = max_chosen();
    detail::require_mask(trace, tokens);
    trace.set_has_probabilities(routing::makes_probabilities<std::remove_cvref_t<decltype(score_.function())>>());
    matrix<value_type> masked(&ctx.workspace());
    x = detail::without_padding(ctx, x, trace, masked);
    auto chosen = choices(&ctx.workspace(), tokens);
    score_.forward(ctx, x, trace);
    hmoe::for_each_row(ctx, tokens, [&](std::size_t t) {
      if (!trace.is_valid(t)) {
        std::ranges::fill(trace.logits().row(t), value_type(0));
        std::ranges::fill(trace.probabilities().row(t), value_type(0));
        return;
      }
      detail::check_finite(on_non_finite_, t, std::as_const(trace).logits().row(t));
      routing::score_row(ctx.backend(), score_.function(), std::as_const(trace).logits().row(t),
                         trace.probabilities().row(t));
      if (on_non_finite_ == non_finite::exclude)
        detail::clear_excluded(trace, t, trace.probabilities().row(t));
    });
    assigned.resize_tokens(tokens);
    assigned.set_padding(tokens - trace.valid_tokens());
    choose(ctx, trace, {chosen.data(), tokens, most}, assigned.offsets().subview(1, tokens));
    for (std::size_t t = 0; t < tokens; ++t)
      assigned.offsets()[t + 1] += static_cast<index_t>(shared_of(trace, t));
    assigned.sum_counts();
    assigned.resize_entries();
    auto scratch = weighting_memory(&ctx.workspace(), ctx.executor().concurrency());
    hmoe::for_each_row(ctx, tokens, [&](std::size_t t, std::size_t worker) {
      if (!trace.is_valid(t))
        return;
      const std::size_t first = assigned.offsets()[t], count = assigned.offsets()[t + 1] - first - shared_.size();
      index_t* ids = assigned.experts().data() + first;
      std::copy_n(chosen.data() + t * most, count, ids);
      std::iota(ids + count, ids + count + shared_.size(), static_cast<index_t>(routed()));
      const std::size_t weighed = joint ? count + shared_.size() : count;
      const weighting_values seen = values_of(trace, x, t, of_worker(scratch, worker));
      if (weighed != 0)
        routing::weigh(weight_, weighting_row{t, trace.inputs().noise}, seen.logits, seen.p,
                       vector_view<const index_t>(ids, weighed), assigned.weights().subview(first, weighed),
                       seen.scratch);
      if (on_non_finite_ == non_finite::propagate)
        detail::spread_nan(seen.p, assigned.weights().subview(first, weighed));
      if constexpr (!joint)
        shared_.forward(x.row(t), assigned.weights().subview(first + count, shared_.size()));
    });
    for (const index_t e : assigned.experts())
      if (e < routed())
        ++trace.tokens_per_expert()[e];
  }

  template <execution_context Context>
  void lay_out_forward(const Context& dry, std::size_t tokens, bool some_padding) const {
    std::pmr::memory_resource* memory = &dry.workspace();
    detail::lay_out_without_padding<value_type>(memory, some_padding ? tokens : 0, d_model());
    static_cast<void>(choices(memory, tokens));
    routing::lay_out_part(score_, memory, tokens);
    if constexpr (batch_selection<Selection, value_type>)
      routing::lay_out_part(select_, memory, tokens, routed());
    else
      static_cast<void>(selection_memory(memory, dry.executor().concurrency()));
    static_cast<void>(weighting_memory(memory, dry.executor().concurrency()));
  }

  /// From ∂L/∂weights [entries] and the trace's sinks: dx += and gradients +=.
  template <execution_context Context>
  void backward(const Context& ctx, matrix_view<const value_type> x, const router_trace<value_type>& trace,
                const assignment<value_type>& assigned, vector_view<const value_type> d_weights,
                matrix_view<value_type> dx, router& gradients) const {
    matrix<value_type> masked(&ctx.workspace());
    x = detail::without_padding(ctx, x, trace, masked);
    auto d_logits = per_expert(&ctx.workspace(), x.rows()), d_p = per_expert(&ctx.workspace(), x.rows());
    auto scratch = weighting_memory(&ctx.workspace(), ctx.executor().concurrency());
    auto d_shared = shared_gradients(&ctx.workspace(), x.rows());
    hmoe::for_each_row(ctx, x.rows(), [&](std::size_t t, std::size_t worker) {
      if (!trace.is_valid(t)) {
        std::ranges::fill(d_logits.row(t), value_type(0));
        std::ranges::fill(d_shared.row(t), value_type(0));
        return;
      }
      std::ranges::copy(trace.d_logits().row(t), d_logits.row(t).begin());
      std::ranges::copy(trace.d_probabilities().row(t), d_p.row(t).begin());
      if (on_non_finite_ == non_finite::exclude)
        detail::clear_excluded(trace, t, d_p.row(t));
      const auto logits = trace.logits().row(t), p = trace.probabilities().row(t);
      const std::size_t first = assigned.offsets()[t], count = assigned.offsets()[t + 1] - first - shared_.size();
      if constexpr (joint)
        joint_backward(trace, assigned, x, t, d_weights, d_logits.row(t), d_p.row(t), d_shared.row(t),
                       of_worker(scratch, worker));
      else if (count != 0)
        routing::weigh_backward(weight_, weighting_row{t, trace.inputs().noise}, logits, p,
                                assigned.experts().subview(first, count), assigned.weights().subview(first, count),
                                d_weights.subview(first, count), d_logits.row(t), d_p.row(t),
                                of_worker(scratch, worker));
      score_.function().backward(logits, p, std::as_const(d_p).row(t), d_logits.row(t));
      if (on_non_finite_ == non_finite::exclude)
        detail::clear_excluded(trace, t, d_logits.row(t));
    });
    if constexpr (learned_weighting<Weighting>)
      add_weighting_gradients(trace, assigned, x, d_weights, gradients.weight_, of_worker(scratch, 0));
    score_.backward(ctx, x, trace, std::as_const(d_logits).view(), dx, gradients.score_);
    if constexpr (joint)
      shared_.backward(ctx, x, std::as_const(d_shared).view(), dx, gradients.shared_);
    else
      shared_.backward(ctx, x, assigned, d_weights, dx, gradients.shared_);
  }
  template <execution_context Context>
  void lay_out_backward(const Context& dry, std::size_t tokens, bool some_padding) const {
    std::pmr::memory_resource* memory = &dry.workspace();
    detail::lay_out_without_padding<value_type>(memory, some_padding ? tokens : 0, d_model());
    static_cast<void>(per_expert(memory, tokens));
    static_cast<void>(per_expert(memory, tokens));
    static_cast<void>(weighting_memory(memory, dry.executor().concurrency()));
    static_cast<void>(shared_gradients(memory, tokens));
    routing::lay_out_part(score_, memory, tokens);
    routing::lay_out_part(shared_, memory, tokens);
  }

  template <class Visitor> void visit_parameters(Visitor&& visitor) const {
    hmoe::detail::visit_as_const(*this, visitor);
  }
  template <class Visitor> void visit_parameters(Visitor&& visitor) {
    const hmoe::detail::visitor_reference<value_type> visit(visitor);
    score_.visit_parameters(visit);
    if constexpr (requires { select_.visit_parameters(visit); })
      select_.visit_parameters(visit);
    if constexpr (learned_weighting<Weighting>)
      weight_.visit_parameters(visit);
    shared_.visit_parameters(visit);
  }
  void initialize(seed key, std::uint64_t stream, const initialization& options) {
    score_.initialize(key, stream, options);
    shared_.initialize(key, stream + 8, options); // scores have at most 8 tensors
    if constexpr (learned_weighting<Weighting>)
      weight_.initialize(key, stream + 12, options);
  }

private:
  [[nodiscard]] static Shared make_shared_policy(std::size_t d_model) {
    if constexpr (std::default_initializable<Shared>)
      return {};
    else
      return Shared(d_model);
  }
  [[nodiscard]] std::size_t max_chosen() const {
    if constexpr (requires { select_.max_selected(routed()); })
      return std::min<std::size_t>(select_.max_selected(routed()), routed());
    else
      return routed();
  }

  /// Choices go to rows of fixed size first: how many a token takes is not known before.
  [[nodiscard]] buffer<index_t> choices(std::pmr::memory_resource* memory, std::size_t tokens) const {
    return buffer<index_t>(tokens * max_chosen(), memory);
  }
  [[nodiscard]] buffer<value_type> selection_memory(std::pmr::memory_resource* memory, std::size_t workers) const {
    return buffer<value_type>(workers * scratch_per_worker(), memory);
  }
  /// Whether the weighting makes the weights of shared experts, too (jointly_weighted), and for how many experts.
  static constexpr bool joint = requires { Shared::joins_weighting; };
  [[nodiscard]] std::size_t weighted() const noexcept { return joint ? size() : routed(); }

  /// What a weighting wants, and where it is joint, room for rows of logits, scores and both of their gradients.
  [[nodiscard]] std::size_t weighting_scratch_per_worker() const {
    return weighting_scratch(weight_, weighted()) + (joint ? 4 * weighted() : 0);
  }
  [[nodiscard]] buffer<value_type> weighting_memory(std::pmr::memory_resource* memory, std::size_t workers) const {
    return buffer<value_type>(workers * weighting_scratch_per_worker(), memory);
  }
  [[nodiscard]] matrix<value_type> shared_gradients(std::pmr::memory_resource* memory, std::size_t tokens) const {
    return matrix<value_type>::for_overwrite(tokens, joint ? shared_.size() : 0, memory);
  }
  [[nodiscard]] vector_view<value_type> of_worker(buffer<value_type>& scratch, std::size_t worker) const {
    const std::size_t size = weighting_scratch_per_worker();
    return {scratch.data() + worker * size, size};
  }

  /// What the weighting sees of a token: the rows of the trace, or where it is joint, these and the shared experts'
  /// behind them, at the begin of the scratch.
  struct weighting_values {
    vector_view<const value_type> logits, p;
    vector_view<value_type> d_logits, d_p, scratch; ///< gradients: only where it is joint
  };
  [[nodiscard]] weighting_values values_of(const router_trace<value_type>& trace, matrix_view<const value_type> x,
                                           std::size_t t, vector_view<value_type> scratch) const {
    const auto logits = trace.logits().row(t), p = trace.probabilities().row(t);
    if constexpr (joint) {
      const std::size_t n = routed(), all = weighted();
      const auto z = scratch.subview(0, all), scores = scratch.subview(all, all);
      std::ranges::copy(logits, z.begin());
      std::ranges::copy(p, scores.begin());
      shared_.scores(x.row(t), z.subview(n, all - n), scores.subview(n, all - n));
      return {z, scores, scratch.subview(2 * all, all), scratch.subview(3 * all, all),
              scratch.subview(4 * all, scratch.size() - 4 * all)};
    } else {
      return {logits, p, {}, {}, scratch};
    }
  }
  void joint_backward(const router_trace<value_type>& trace, const assignment<value_type>& assigned,
                      matrix_view<const value_type> x, std::size_t t, vector_view<const value_type> d_weights,
                      vector_view<value_type> d_logits, vector_view<value_type> d_p, vector_view<value_type> d_shared,
                      vector_view<value_type> scratch) const {
    const weighting_values seen = values_of(trace, x, t, scratch);
    const std::size_t first = assigned.offsets()[t], count = assigned.offsets()[t + 1] - first, n = routed();
    std::ranges::fill(seen.d_logits, value_type(0));
    std::ranges::fill(seen.d_p, value_type(0));
    routing::weigh_backward(weight_, weighting_row{t, trace.inputs().noise}, seen.logits, seen.p,
                            assigned.experts().subview(first, count), assigned.weights().subview(first, count),
                            d_weights.subview(first, count), seen.d_logits, seen.d_p, seen.scratch);
    for (std::size_t e = 0; e < n; ++e) {
      d_logits[e] += seen.d_logits[e];
      d_p[e] += seen.d_p[e];
    }
    const auto behind = [&](auto row) { return row.subview(n, d_shared.size()); };
    shared_.scores_backward(behind(seen.logits), behind(seen.p), vector_view<const value_type>(behind(seen.d_p)),
                            behind(seen.d_logits));
    std::ranges::copy(behind(seen.d_logits), d_shared.begin());
  }
  /// Token by token in order, so that the sums do not depend on the number of threads.
  void add_weighting_gradients(const router_trace<value_type>& trace, const assignment<value_type>& assigned,
                               matrix_view<const value_type> x, vector_view<const value_type> d_weights,
                               Weighting& gradients, vector_view<value_type> scratch) const {
    for (std::size_t t = 0; t < trace.tokens(); ++t) {
      if (!trace.is_valid(t))
        continue;
      const std::size_t first = assigned.offsets()[t],
                        count = assigned.offsets()[t + 1] - first - (joint ? 0 : shared_.size());
      const weighting_values seen = values_of(trace, x, t, scratch);
      if (count != 0)
        routing::weigh_parameters(weight_, seen.logits, seen.p, assigned.experts().subview(first, count),
                                  assigned.weights().subview(first, count), d_weights.subview(first, count), gradients,
                                  seen.scratch);
    }
  }
  [[nodiscard]] matrix<value_type> per_expert(std::pmr::memory_resource* memory, std::size_t tokens) const {
    return matrix<value_type>::for_overwrite(tokens, routed(), memory);
  }

  /// Runs the selection; counts[t] of row t of `chosen` are then the token's experts, ids ascending.
  template <execution_context Context>
  void choose(const Context& ctx, const router_trace<value_type>& trace, matrix_view<index_t> chosen,
              vector_view<index_t> counts) const {
    if constexpr (batch_selection<Selection, value_type>) {
      select_(trace, chosen, counts, &ctx.workspace());
      hmoe::for_each_row(ctx, chosen.rows(), [&](std::size_t t) {
        if (!trace.is_valid(t))
          counts[t] = 0;
        detail::check_choice(t, chosen.row(t), counts[t], routed());
        if (on_non_finite_ == non_finite::exclude)
          counts[t] = detail::drop_excluded(trace, t, chosen.row(t), counts[t]);
        counts[t] = detail::keep_most_probable(trace, t, chosen.row(t), counts[t]);
      });
    } else {
      const std::size_t scratch_size = scratch_per_worker();
      auto scratch = selection_memory(&ctx.workspace(), ctx.executor().concurrency());
      hmoe::for_each_row(ctx, chosen.rows(), [&](std::size_t t, std::size_t worker) {
        if (!trace.is_valid(t)) {
          counts[t] = 0;
          return;
        }
        vector_view<value_type> mine(scratch.data() + worker * scratch_size, scratch_size);
        vector_view<const value_type> p = trace.probabilities().row(t);
        if (on_non_finite_ == non_finite::exclude) {
          p = detail::with_excluded_last(trace, t, mine.subview(0, routed()));
          mine = mine.subview(routed(), scratch_size - routed());
        }
        const std::size_t count = routing::select_row(ctx.backend(), select_, p, chosen.row(t), mine);
        detail::check_choice(t, chosen.row(t), count, routed());
        counts[t] = static_cast<index_t>(count);
        if (on_non_finite_ == non_finite::exclude)
          counts[t] = detail::drop_excluded(trace, t, chosen.row(t), counts[t]);
        counts[t] = detail::keep_most_probable(trace, t, chosen.row(t), counts[t]);
      });
    }
  }

  /// The experts that every token gets, unless it is padding.
  [[nodiscard]] std::size_t shared_of(const router_trace<value_type>& trace, std::size_t token) const noexcept {
    return trace.is_valid(token) ? shared_.size() : 0;
  }
  /// What the selection wants, and a row of probabilities for it where experts may be out of service.
  [[nodiscard]] std::size_t scratch_per_worker() const {
    return selection_scratch(select_, routed()) + (on_non_finite_ == non_finite::exclude ? routed() : 0);
  }

  Score score_;
  Selection select_;
  Weighting weight_;
  [[no_unique_address]] Shared shared_;
  non_finite on_non_finite_ = non_finite::error;
};

/// Softmax routers by name: top_k_router<float> r{d, N, 2}; top_p_router<float> r{d, N, 0.6};
/// With k = 1 the default weighting gives every token the weight 1, which depends on no parameter: the layer's output
/// then sends the router no gradient (auxiliary losses still do). For k = 1 take top_k_router<float, raw>, as Switch.
template <float_or_double T, class Weighting = renormalized> using top_k_router = router<linear<T>, top_k<>, Weighting>;
template <float_or_double T, class Weighting = renormalized> using top_p_router = router<linear<T>, top_p, Weighting>;
template <float_or_double T, class Weighting = renormalized>
using threshold_router = router<linear<T>, threshold, Weighting>;

} // namespace routing
} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
