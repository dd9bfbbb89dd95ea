// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/assignment.hpp>
#include <hmoe/core/buffer.hpp>
#include <hmoe/core/error.hpp>
#include <hmoe/core/initialization.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/routing/linear_score.hpp>
#include <hmoe/routing/selection.hpp>
#include <hmoe/routing/selections.hpp>
#include <hmoe/routing/weightings.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <utility>

namespace hmoe {

/// Sends tokens to experts. Requirements:
///   value_type, d_model(), size()           size() is the number of experts N
///   max_selected()                          the most experts a token can get
///   forward(ctx, x, trace, assigned)        fills both, validating before it writes
///   backward(ctx, x, trace, assigned, d_weights, dx, gradients)
///                                           dx += and gradients +=, from ∂L/∂weights and the trace's sinks
///   visit_parameters(f), initialize(seed, stream, options)
/// It is copyable; its gradients are an object of the same type. Forward and backward are templates over the
/// context, so they are checked where a layer is run.
template <class R>
concept router = std::copyable<R> && requires(const R& r, R& mutable_r) {
  requires real<typename R::value_type>;
  { r.d_model() } -> std::convertible_to<std::size_t>;
  { r.size() } -> std::convertible_to<std::size_t>;
  { r.max_selected() } -> std::convertible_to<std::size_t>;
  mutable_r.visit_parameters([](const parameter_info&, matrix_view<typename R::value_type>) {});
  mutable_r.initialize(seed{}, std::uint64_t{}, initialization{});
};

namespace routing {

/// What to do when a logit is NaN or infinite: throw hmoe::error before anything is written to the caller's output,
/// or let it run through to the output of the tokens concerned.
enum class non_finite { error, propagate };

/// The usual router, put together from three policies that each see one token's row: Score makes logits and
/// probabilities of the token, Selection picks experts by probability, Weighting says how much each counts.
template <class Score, class Selection, class Weighting = renormalized> class router {
public:
  using value_type = typename Score::value_type;
  static_assert(selection<Selection, value_type>,
                "hmoe::routing::router: Selection does not model hmoe::selection: it must be callable as "
                "count = selection(vector_view<const T> p, vector_view<index_t> chosen), const "
                "(see hmoe/routing/selection.hpp)");
  static_assert(weighting<Weighting, value_type>,
                "hmoe::routing::router: Weighting does not model hmoe::weighting: it needs forward(logits, p, chosen, "
                "w) and backward(logits, p, chosen, w, dw, d_logits, d_p), const (see hmoe/routing/weightings.hpp)");

  router(Score score, Selection select, Weighting weight = {})
      : score_(std::move(score)), select_(std::move(select)), weight_(std::move(weight)) {
    if constexpr (requires { select_.validate(size()); })
      select_.validate(size());
  }
  router(std::size_t d_model, std::size_t experts, Selection select = {}, Weighting weight = {})
      : router(Score(d_model, experts), std::move(select), std::move(weight)) {}

  [[nodiscard]] std::size_t d_model() const noexcept { return score_.d_model(); }
  [[nodiscard]] std::size_t size() const noexcept { return score_.size(); }
  [[nodiscard]] std::size_t max_selected() const {
    if constexpr (requires { select_.max_selected(size()); })
      return select_.max_selected(size());
    else
      return size();
  }
  [[nodiscard]] Score& score() noexcept { return score_; }
  [[nodiscard]] const Score& score() const noexcept { return score_; }
  [[nodiscard]] const Selection& selection_policy() const noexcept { return select_; }
  [[nodiscard]] const Weighting& weighting_policy() const noexcept { return weight_; }

  [[nodiscard]] non_finite on_non_finite() const noexcept { return on_non_finite_; }
  void set_on_non_finite(non_finite policy) noexcept { on_non_finite_ = policy; }

  /// x[T×d] → trace (logits, probabilities, counts) and assignment.
  template <class Context>
  void forward(const Context& ctx, matrix_view<const value_type> x, router_trace<value_type>& trace,
               assignment<value_type>& assigned) const {
    const std::size_t tokens = x.rows(), most = max_selected();
    // Selections go to rows of fixed size first: how many a token takes is not known before.
    buffer<index_t> chosen(tokens * most, &ctx.workspace());
    score_.forward(ctx, x, trace.logits());
    assigned.resize_tokens(tokens);
    for_each_block(ctx, tokens, [&](std::size_t t) {
      check_finite(t, std::as_const(trace).logits().row(t));
      score_.function().forward(std::as_const(trace).logits().row(t), trace.probabilities().row(t));
      const auto slots = chosen.view().subview(t * most, most);
      const std::size_t count = select_(std::as_const(trace).probabilities().row(t), slots);
      check_selection(t, slots, count);
      assigned.offsets()[t + 1] = static_cast<index_t>(count);
    });
    for (std::size_t t = 0; t < tokens; ++t)
      assigned.offsets()[t + 1] += assigned.offsets()[t];
    assigned.resize_entries();
    for_each_block(ctx, tokens, [&](std::size_t t) {
      const std::size_t first = assigned.offsets()[t], count = assigned.offsets()[t + 1] - first;
      std::copy_n(chosen.data() + t * most, count, assigned.experts().data() + first);
      weight_.forward(std::as_const(trace).logits().row(t), std::as_const(trace).probabilities().row(t),
                      std::as_const(assigned).experts_of(t), assigned.weights().subview(first, count));
    });
    for (const index_t e : assigned.experts())
      ++trace.tokens_per_expert()[e];
  }

  /// From ∂L/∂weights [entries] and the trace's sinks: dx += and gradients +=.
  template <class Context>
  void backward(const Context& ctx, matrix_view<const value_type> x, const router_trace<value_type>& trace,
                const assignment<value_type>& assigned, vector_view<const value_type> d_weights,
                matrix_view<value_type> dx, router& gradients) const {
    matrix<value_type> d_logits(&ctx.workspace()), d_p(&ctx.workspace());
    d_logits.resize_for_overwrite(x.rows(), size());
    d_p.resize_for_overwrite(x.rows(), size());
    for_each_block(ctx, x.rows(), [&](std::size_t t) {
      std::ranges::copy(trace.d_logits().row(t), d_logits.row(t).begin());
      std::ranges::copy(trace.d_probabilities().row(t), d_p.row(t).begin());
      const auto logits = trace.logits().row(t), p = trace.probabilities().row(t);
      const auto chosen = assigned.experts_of(t);
      if (!chosen.empty())
        weight_.backward(logits, p, chosen, assigned.weights_of(t),
                         d_weights.subview(assigned.offsets()[t], chosen.size()), d_logits.row(t), d_p.row(t));
      score_.function().backward(logits, p, vector_view<const value_type>(d_p.row(t)), d_logits.row(t));
    });
    score_.backward(ctx, x, d_logits, dx, gradients.score_);
  }

  template <class Visitor> void visit_parameters(Visitor&& visit) { score_.visit_parameters(visit); }
  void initialize(seed key, std::uint64_t stream, const initialization& options) {
    score_.initialize(key, stream, options);
  }

private:
  template <class Context, class F> static void for_each_block(const Context& ctx, std::size_t tokens, F&& f) {
    ctx.executor().for_each((tokens + score_block - 1) / score_block, [&](std::size_t task, std::size_t) {
      const std::size_t last = std::min(tokens, (task + 1) * score_block);
      for (std::size_t t = task * score_block; t < last; ++t)
        f(t);
    });
  }
  void check_finite(std::size_t token, vector_view<const value_type> logits) const {
    if (on_non_finite_ == non_finite::propagate)
      return;
    for (std::size_t e = 0; e < logits.size(); ++e)
      require(std::isfinite(logits[e]), "the router's logit of token ", token, " for expert ", e, " is ", logits[e]);
  }
  /// A selection may come from anywhere, so what it returns is checked; ids are put in ascending order.
  void check_selection(std::size_t token, vector_view<index_t> slots, std::size_t count) const {
    require(count <= slots.size(), "the selection chose ", count, " experts for token ", token, ", at most ",
            slots.size(), " are possible");
    std::sort(slots.begin(), slots.begin() + count);
    for (std::size_t i = 0; i < count; ++i) {
      require(slots[i] < size(), "the selection chose expert ", slots[i], " of ", size(), " for token ", token);
      require(i == 0 || slots[i] != slots[i - 1], "the selection chose expert ", slots[i], " twice for token ", token);
    }
  }

  Score score_;
  Selection select_;
  Weighting weight_;
  non_finite on_non_finite_ = non_finite::error;
};

/// Softmax routers by name: top_k_router<float> r{d, N, 2}; top_p_router<float> r{d, N, 0.6};
template <real T, class Weighting = renormalized> using top_k_router = router<linear<T>, top_k<>, Weighting>;
template <real T, class Weighting = renormalized> using top_p_router = router<linear<T>, top_p, Weighting>;
template <real T, class Weighting = renormalized> using threshold_router = router<linear<T>, threshold, Weighting>;

} // namespace routing
} // namespace hmoe
