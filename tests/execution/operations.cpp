// SPDX-License-Identifier: MIT
#include <hmoe/backends/reference.hpp>
#include <hmoe/execution/context.hpp>
#include <hmoe/execution/operations.hpp>
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

using namespace hmoe;

namespace {
struct nothing : backends::reference {};
struct with_dot : backends::reference {
  template <class T> static T dot(vector_view<const T>, vector_view<const T>) { return T(7); }
};
struct overloaded_dot : backends::reference {
  float dot(vector_view<const float>, vector_view<const float>) const { return 7; }
  double dot(vector_view<const double>, vector_view<const double>) const { return 7; }
};
struct mutable_dot : backends::reference {
  template <class T> T dot(vector_view<const T>, vector_view<const T>) { return T(7); }
};
struct dot_of_float : backends::reference {
  float dot(vector_view<const float>, vector_view<const float>) const { return 7; }
};
struct dot_of_other_shape : backends::reference {
  template <class T> T dot(const T*, const T*, std::size_t) const { return T(7); }
};
struct derived : with_dot {};

template <class B> constexpr bool named = operations::detail::names_dot<B>;
} // namespace

TEST_CASE("an operation is seen by its name, whatever its form, and fits only as stated") {
  static_assert(!named<nothing> && !operations::dot<nothing, float>());
  static_assert(named<with_dot> && operations::dot<with_dot, float>() && operations::dot<with_dot, double>());
  static_assert(named<overloaded_dot> && operations::dot<overloaded_dot, double>());
  static_assert(named<derived> && operations::dot<derived, float>());
  static_assert(named<mutable_dot> && !operations::has_dot<mutable_dot, float>);
  static_assert(named<dot_of_float> && !operations::has_dot<dot_of_float, double>);
  static_assert(named<dot_of_other_shape> && !operations::has_dot<dot_of_other_shape, float>);
}

namespace mine {
/// A backend in a namespace with functions that argument-dependent lookup would prefer to the library's.
struct backend : hmoe::backends::reference {};

template <class T> void add_scaled(const backend&, T, vector_view<const T>, vector_view<T> to) { to[0] = T(1e6); }
template <class T> void copy_scaled(const backend&, T, vector_view<const T>, vector_view<T> to) { to[0] = T(1e6); }
template <class T> T dot(const backend&, vector_view<const T>, vector_view<const T>) { return T(1e6); }
inline float dot(const backend&, vector_view<const float>, vector_view<const float>) { return 1e6F; }
template <class W, class R, class T>
void weighted_sum(const backend&, std::size_t, const W&, const R&, vector_view<T> to) {
  to[0] = T(1e6);
}
template <class Gate, class T>
void apply_gate(const backend&, const Gate&, vector_view<const T>, vector_view<const T>, vector_view<T> a) {
  a[0] = T(1e6);
}
template <class Gate, class T>
void apply_gate_backward(const backend&, const Gate&, vector_view<const T>, vector_view<const T>, vector_view<T> dg,
                         vector_view<T>) {
  dg[0] = T(1e6);
}
template <class A, class T> void activate(const backend&, vector_view<const T>, vector_view<T> a) { a[0] = T(1e6); }
template <class F, class T> void score_row(const backend&, const F&, vector_view<const T>, vector_view<T> p) {
  p[0] = T(1e6);
}
template <class S, class T>
std::size_t select_row(const backend&, const S&, vector_view<const T>, vector_view<index_t> chosen, vector_view<T>) {
  chosen[0] = 0;
  return 1;
}
template <class C, class F> void for_each_row(const C&, std::size_t, F&&) {}
template <class C, class F> void for_each_row_block(const C&, std::size_t, F&&) {}
template <class C, class F> void for_each_block(const C&, std::size_t, F&&) {}
template <class C, class E, class T> void forward_rows(const C&, const E&, vector_view<const expert_rows<T>>) {}
template <class C, class T> void project(const C&, matrix_view<const T>, matrix_view<const T>, matrix_view<T>) {}
template <class C, class... A> void gather_input(const C&, const A&...) {}
template <class C, class... A> void combine(const C&, const A&...) {}
} // namespace mine

TEST_CASE("no function of the user's namespace takes the place of the library's") {
  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>{5, {3, 8, 2}}},
                  routing::top_k_router<float>{5, 3, 2}};
  layer.initialize(seed{4}, {.router_stddev = 1});
  support::random_source random(5);
  const auto x = support::random_matrix<float>(random, 9, 5), dy = support::random_matrix<float>(random, 9, 5);
  const auto run = [&](const auto& ctx) {
    auto tape = layer.make_tape(9);
    auto gradients = layer.make_gradients();
    matrix<float> y(9, 5), dx(9, 5);
    layer.forward(ctx, x, y, tape);
    layer.backward(ctx, tape, dy, dx, gradients);
    std::vector<float> all(y.data(), y.data() + y.size());
    all.insert(all.end(), dx.data(), dx.data() + dx.size());
    gradients.visit_parameters([&](const parameter_info&, matrix_view<float> view) {
      all.insert(all.end(), view.data(), view.data() + view.size());
    });
    return all;
  };
  const auto expected = run(context{backends::reference{}});
  const auto ours = run(context{mine::backend{}});
  REQUIRE(ours.size() == expected.size());
  CHECK(std::memcmp(ours.data(), expected.data(), ours.size() * sizeof(float)) == 0);
}
