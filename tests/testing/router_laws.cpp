// SPDX-License-Identifier: MIT
#include <hmoe/routing/batch_selections/random_hash.hpp>
#include <hmoe/routing/scores/gate_residual.hpp>
#include <hmoe/routing/selections/biased.hpp>
#include <hmoe/routing/weightings/raw.hpp>
#include <hmoe/testing/router_laws.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

using hmoe::index_t;
using hmoe::vector_view;
using hmoe::testing::check_router;
namespace routing = hmoe::routing;

namespace {
using base = routing::top_k_router<double>;
enum class fault {
  none,
  wrong_dx,
  overwrites,
  drops_sink,
  batch_dependent,
  miscounts,
  wrong_gradient,
  invents_a_token,
  unordered,
  chooses_more,
  hides_a_logit,
  drifts,
  clears_gradients,
  takes_more_forward,
  takes_more_backward
};

struct faulty : base {
  fault has;
  static inline std::atomic<int> calls = 0;

  explicit faulty(fault f) : base(4, 5, 2), has(f) {}
  [[nodiscard]] std::size_t max_selected() const { return has == fault::chooses_more ? 1 : base::max_selected(); }
  template <class Context>
  void forward(const Context& ctx, hmoe::matrix_view<const double> x, hmoe::router_trace<double>& trace,
               hmoe::assignment<double>& assigned) const {
    base::forward(ctx, x, trace, assigned);
    const hmoe::buffer<double> more(has == fault::takes_more_forward ? 100 : 0, &ctx.workspace());
    if (has == fault::batch_dependent)
      for (double& w : assigned.weights())
        w *= static_cast<double>(x.rows());
    if (has == fault::miscounts && x.rows() != 0)
      ++trace.tokens_per_expert()[1];
    if (has == fault::invents_a_token) {
      std::vector<hmoe::index_t> offsets(assigned.offsets().begin(), assigned.offsets().end());
      offsets.push_back(offsets.back());
      assigned.resize_tokens(x.rows() + 1);
      std::copy(offsets.begin(), offsets.end(), assigned.offsets().begin());
    }
    if (has == fault::unordered && x.rows() != 0)
      std::swap(assigned.experts()[0], assigned.experts()[1]);
    if (has == fault::hides_a_logit && x.rows() != 0)
      trace.logits()(0, 0) = std::nan("");
    if (has == fault::drifts && x.rows() != 0)
      assigned.weights()[0] += ++calls;
  }
  template <class Context>
  void backward(const Context& ctx, hmoe::matrix_view<const double> x, const hmoe::router_trace<double>& trace,
                const hmoe::assignment<double>& assigned, vector_view<const double> d_weights,
                hmoe::matrix_view<double> dx, faulty& gradients) const {
    if (has == fault::overwrites)
      for (std::size_t t = 0; t < dx.rows(); ++t)
        std::fill(dx.row(t).begin(), dx.row(t).end(), 0.0);
    if (has == fault::clears_gradients)
      hmoe::set_zero(gradients);
    hmoe::router_trace<double> other = trace;
    if (has == fault::drops_sink)
      other.clear_gradients();
    base::backward(ctx, x, std::as_const(other), assigned, d_weights, dx, gradients);
    const hmoe::buffer<double> more(has == fault::takes_more_backward ? 100 : 0, &ctx.workspace());
    if (has == fault::wrong_dx)
      dx(0, 0) += 1;
    if (has == fault::wrong_gradient)
      gradients.score().weight()(1, 2) *= 1.001;
  }
};

/// Its selection bias is moved by a rule, and yet gets a gradient.
using biased_base = routing::router<routing::linear<double>, routing::biased<double, routing::top_k<>>>;
struct pushes_the_bias : biased_base {
  pushes_the_bias() : biased_base(4, 5, {5, {2}}) {}
  template <class Context>
  void backward(const Context& ctx, hmoe::matrix_view<const double> x, const hmoe::router_trace<double>& trace,
                const hmoe::assignment<double>& assigned, vector_view<const double> d_weights,
                hmoe::matrix_view<double> dx, pushes_the_bias& gradients) const {
    biased_base::backward(ctx, x, trace, assigned, d_weights, dx, gradients);
    gradients.selection_policy().bias()[0] += 1;
  }
};

/// Gives the previous layer half of its gradient, or all of it once only.
template <bool Overwrites> struct half_residual : routing::gate_residual<routing::linear<double>> {
  using gate_residual::gate_residual;
  template <class Context>
  void backward(const Context& ctx, hmoe::matrix_view<const double> x, const hmoe::router_trace<double>& trace,
                hmoe::matrix_view<const double> d_logits, hmoe::matrix_view<double> dx, half_residual& g) const {
    const auto sink = trace.inputs().previous->d_logits();
    if (Overwrites)
      std::fill_n(sink.data(), sink.size(), 0.0);
    gate_residual::backward(ctx, x, trace, d_logits, dx, g);
    for (std::size_t i = 0; i < sink.size() && !Overwrites; ++i)
      sink.data()[i] /= 2;
  }
};
/// Writes one logit too many.
struct past_the_matrix : routing::linear<double> {
  using linear::linear;
  template <class Context>
  void forward(const Context& ctx, hmoe::matrix_view<const double> x, hmoe::router_trace<double>& trace) const {
    linear::forward(ctx, x, trace);
    trace.logits().data()[trace.logits().size()] = 0;
  }
};
/// Trains a bias that no optimiser and no file gets to see.
struct hides_its_bias : routing::linear<double, routing::softmax, true> {
  using linear::linear;
  template <class Visitor> void visit_parameters(Visitor&& visit) {
    visit(hmoe::parameter_info{"router.weight"}, weight());
  }
};
/// Writes behind dx.
struct past_dx : routing::linear<double> {
  using linear::linear;
  template <class Context>
  void backward(const Context& ctx, hmoe::matrix_view<const double> x, const hmoe::router_trace<double>& trace,
                hmoe::matrix_view<const double> d_logits, hmoe::matrix_view<double> dx, past_dx& g) const {
    linear::backward(ctx, x, trace, d_logits, dx, g);
    dx.row(dx.rows() - 1).data()[dx.cols()] = 0;
  }
};
std::string laws(fault has) { return check_router(faulty{has}).text(); }
} // namespace

TEST_CASE("shipped routers keep the laws") {
  CHECK(laws(fault::none) == "");
  CHECK(check_router(routing::top_p_router<double, routing::raw>(5, 6, 0.6)).text() == "");
  CHECK(check_router(routing::top_k_router<float>(5, 6, 2)).text() == "");
}

TEST_CASE("each fault of a router is named") {
  const auto names = [](const std::string& text, const char* law) { return text.find(law) != std::string::npos; };
  CHECK(names(laws(fault::wrong_dx),
              "backward's dx is the derivative by x: dx differs from finite differences at [0, 0]: got "));
  CHECK(names(laws(fault::overwrites), "backward adds to dx"));
  CHECK(names(laws(fault::drops_sink), "backward's dx is the derivative by x"));
  CHECK(names(laws(fault::batch_dependent), "the routing of a token does not depend on its batch: token 0"));
  CHECK(names(laws(fault::miscounts), "tokens_per_expert counts the assignment: expert 1"));
  CHECK(names(laws(fault::wrong_gradient), "the derivatives by the parameters: router.weight differs"));
  CHECK(names(laws(fault::invents_a_token), "assigns every token of the batch: the assignment has 7 tokens"));
  CHECK(names(laws(fault::unordered), "the assignment is well formed: an exception was thrown: hmoe: the experts of"));
  CHECK(names(laws(fault::chooses_more), "chooses at most max_selected experts: token 0 has 2, max_selected() is 1"));
  CHECK(names(laws(fault::hides_a_logit), "logits, probabilities and weights are written"));
  CHECK(names(laws(fault::drifts), "routes the same every time"));
  CHECK(names(laws(fault::clears_gradients), "gradients are added, not overwritten"));
  CHECK(names(laws(fault::takes_more_forward), "lay_out_forward announces enough"));
  CHECK(names(laws(fault::takes_more_backward), "lay_out_backward announces enough"));
  const auto laws_of = [](auto score) { return check_router(routing::router(score, routing::top_k<2>{})).text(); };
  CHECK(names(laws_of(past_the_matrix(4, 5)),
              "writes only into the trace and the assignment: x, or memory beside those, changed with 6 tokens"));
  CHECK(names(laws_of(hides_its_bias(4, 5)), "visit_parameters visits every parameter: a copy that was used"));
  CHECK(names(laws_of(past_dx(4, 5)), "backward writes only into dx and gradients"));
  CHECK(names(check_router(pushes_the_bias{}).text(), "what is not trained has no gradient: router.selection_bias"));
}

TEST_CASE("what tokens come with reaches the router, and the previous layer gets its gradient") {
  const auto laws_of = [](auto score, const hmoe::testing::router_options& options) {
    return check_router(routing::router(score, routing::top_k<2>{}), options).text();
  };
  const auto names = [](const std::string& text, const char* law) { return text.find(law) != std::string::npos; };
  CHECK(laws_of(routing::gate_residual<routing::linear<double>>(4, 5), {.previous_experts = 5}) == "");
  CHECK(names(laws_of(half_residual<false>(4, 5), {.previous_experts = 5}), "gives the previous layer the derivative"));
  CHECK(names(laws_of(half_residual<true>(4, 5), {.previous_experts = 5}), "adds to the previous layer's gradient"));
  CHECK(names(laws_of(routing::gate_residual<routing::linear<double>>(4, 5), {.previous_experts = 6}),
              "the previous layer's logits are 6 x 6, needed are 6 x 5"));
  const routing::router by_id(routing::linear<double>(4, 5), routing::random_hash{2});
  CHECK(check_router(by_id, {.vocabulary = 9}).text() == "");
  CHECK(names(check_router(by_id).text(), "hash selection needs the id of each token"));
}
