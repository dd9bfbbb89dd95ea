// SPDX-License-Identifier: MIT
// A layer whose experts are numbered as the caller says: the values of the same layer numbered otherwise, and the same
// bits by every dropless dispatch, since a token's sum follows the ids and not the banks.
#include <hmoe/backends/reference.hpp>
#include <hmoe/backends/simd.hpp>
#include <hmoe/dispatch/dense.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/constant.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

using namespace hmoe;

namespace {
constexpr std::size_t d = 9, experts_count = 6;
using glu = experts::glu_bank<float, experts::silu>;
using constant = experts::constant_bank<float>;

/// Four GLU experts, one of width 0, around two constant ones.
expert_set<glu, constant> interleaved(const expert_set<glu, constant>& in_order) {
  return expert_set{expert_ids{{{0, 2, 3, 5}, {1, 4}}}, in_order.bank<0>(), in_order.bank<1>()};
}
/// The place bank after bank of each id.
constexpr std::size_t place[experts_count] = {0, 4, 1, 2, 5, 3};

template <class Experts, class Dispatch, class Context>
matrix<float> forward(Experts experts, const routing::top_k_router<float>& router, Dispatch dispatch,
                      const Context& ctx, const matrix<float>& x) {
  const moe_layer layer{std::move(experts), router, dispatch};
  matrix<float> y(x.rows(), d);
  layer.forward(ctx, x, y);
  return y;
}
bool same_bits(const matrix<float>& a, const matrix<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}
} // namespace

TEST_CASE("numbering experts otherwise permutes the router's columns and changes nothing else") {
  expert_set in_order{glu{d, {5, 0, 7, 3}, experts::biases::all}, constant{d, 2}};
  in_order.initialize(seed{8}, 0, {});
  support::random_source random(9);
  in_order.visit_parameters([&](const parameter_info&, auto view) { support::fill(random, view); });
  routing::top_k_router<float> router{d, experts_count, 3}, permuted{d, experts_count, 3};
  support::fill(random, router.score().weight());
  for (std::size_t e = 0; e < experts_count; ++e)
    for (std::size_t c = 0; c < d; ++c)
      permuted.score().weight()(e, c) = router.score().weight()(place[e], c);
  const auto x = support::random_matrix<float>(random, 40, d);
  const context reference{backends::reference{}};
  const auto expected = forward(in_order, router, dispatch::sorted{}, reference, x),
             ours = forward(interleaved(in_order), permuted, dispatch::sorted{}, reference, x);
  for (std::size_t i = 0; i < ours.size(); ++i)
    CHECK(ours.data()[i] == doctest::Approx(expected.data()[i]).epsilon(1e-5)); // sums run in another order
  CHECK(same_bits(ours, forward(interleaved(in_order), permuted, dispatch::looped{}, reference, x)));
  CHECK(same_bits(ours, forward(interleaved(in_order), permuted, dispatch::scattered{}, reference, x)));
  CHECK(same_bits(ours, forward(interleaved(in_order), permuted, dispatch::dense{}, reference, x)));

  for (const std::size_t threads : {1U, 3U}) {
    const context simd{backends::simd<>{}, executors::openmp{threads}};
    const auto packed = backends::simd<>::pack(interleaved(in_order));
    const auto fast = forward(packed, permuted, dispatch::scattered{}, simd, x);
    for (std::size_t i = 0; i < ours.size(); ++i)
      CHECK(fast.data()[i] == doctest::Approx(expected.data()[i]).epsilon(1e-4));
    CHECK(same_bits(fast, forward(packed, permuted, dispatch::sorted{}, simd, x)));
    CHECK(same_bits(fast, forward(packed, permuted, dispatch::looped{}, simd, x)));
  }
}

TEST_CASE("training with experts numbered otherwise gives each expert its own gradients") {
  expert_set in_order{glu{d, {5, 0, 7, 3}, experts::biases::all}, constant{d, 2}};
  support::random_source random(10);
  in_order.visit_parameters([&](const parameter_info&, auto view) { support::fill(random, view); });
  routing::top_k_router<float> router{d, experts_count, 3}, permuted{d, experts_count, 3};
  support::fill(random, router.score().weight());
  for (std::size_t e = 0; e < experts_count; ++e)
    for (std::size_t c = 0; c < d; ++c)
      permuted.score().weight()(e, c) = router.score().weight()(place[e], c);
  const auto x = support::random_matrix<float>(random, 30, d), dy = support::random_matrix<float>(random, 30, d);
  const auto gradients_of = [&](const auto& experts, const auto& choice) {
    const moe_layer layer{experts, choice};
    const context ctx{backends::reference{}};
    auto tape = layer.make_tape(30);
    auto gradients = layer.make_gradients();
    matrix<float> y(30, d), dx(30, d);
    layer.forward(ctx, x, y, tape);
    layer.backward(ctx, tape, dy, dx, gradients);
    std::vector<float> all;
    gradients.experts.visit_parameters([&](const parameter_info&, matrix_view<float> view) { // bank after bank
      all.insert(all.end(), view.data(), view.data() + view.size());
    });
    return all;
  };
  const auto expected = gradients_of(in_order, router), ours = gradients_of(interleaved(in_order), permuted);
  REQUIRE(ours.size() == expected.size());
  for (std::size_t i = 0; i < ours.size(); ++i)
    CHECK(ours[i] == doctest::Approx(expected[i]).epsilon(1e-4));
}
