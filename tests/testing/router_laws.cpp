// SPDX-License-Identifier: MIT
#include <hmoe/testing/router_laws.hpp>

#include <doctest/doctest.h>

#include <string>

using hmoe::index_t;
using hmoe::vector_view;
using hmoe::testing::check_router;
namespace routing = hmoe::routing;

namespace {
using base = routing::top_k_router<double>;
enum class fault { none, wrong_dx, overwrites, drops_sink, batch_dependent, miscounts, wrong_gradient };

template <fault Fault> struct faulty : base {
  faulty() : base(4, 5, 2) {}
  template <class Context>
  void forward(const Context& ctx, hmoe::matrix_view<const double> x, hmoe::router_trace<double>& trace,
               hmoe::assignment<double>& assigned) const {
    base::forward(ctx, x, trace, assigned);
    if (Fault == fault::batch_dependent)
      for (double& w : assigned.weights())
        w *= static_cast<double>(x.rows());
    if (Fault == fault::miscounts && x.rows() != 0)
      ++trace.tokens_per_expert()[1];
  }
  template <class Context>
  void backward(const Context& ctx, hmoe::matrix_view<const double> x, const hmoe::router_trace<double>& trace,
                const hmoe::assignment<double>& assigned, vector_view<const double> d_weights,
                hmoe::matrix_view<double> dx, faulty& gradients) const {
    if (Fault == fault::overwrites)
      for (std::size_t t = 0; t < dx.rows(); ++t)
        std::fill(dx.row(t).begin(), dx.row(t).end(), 0.0);
    hmoe::router_trace<double> other = trace;
    if (Fault == fault::drops_sink)
      other.clear_gradients();
    base::backward(ctx, x, std::as_const(other), assigned, d_weights, dx, gradients);
    if (Fault == fault::wrong_dx)
      dx(0, 0) += 1;
    if (Fault == fault::wrong_gradient)
      gradients.score().weight()(1, 2) *= 1.001;
  }
};
template <fault Fault> std::string laws() { return check_router(faulty<Fault>{}).text(); }
} // namespace

TEST_CASE("shipped routers keep the laws") {
  CHECK(laws<fault::none>() == "");
  CHECK(check_router(routing::top_p_router<double, routing::raw>(5, 6, 0.6)).text() == "");
  CHECK(check_router(routing::top_k_router<float>(5, 6, 2)).text() == "");
}

TEST_CASE("each fault of a router is named") {
  const auto names = [](const std::string& text, const char* law) { return text.find(law) != std::string::npos; };
  CHECK(names(laws<fault::wrong_dx>(), "backward's dx is the derivative by x: dx differs"));
  CHECK(names(laws<fault::overwrites>(), "backward adds to dx"));
  CHECK(names(laws<fault::drops_sink>(), "backward's dx is the derivative by x"));
  CHECK(names(laws<fault::batch_dependent>(), "the routing of a token does not depend on its batch: token 0"));
  CHECK(names(laws<fault::miscounts>(), "tokens_per_expert counts the assignment: expert 1"));
  CHECK(names(laws<fault::wrong_gradient>(), "the derivatives by the parameters: router.weight differs"));
}
