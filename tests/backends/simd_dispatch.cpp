// SPDX-License-Identifier: MIT
// Every dropless strategy on whole banks of the SIMD backend: the same bits, in memory of the announced size.
#include <hmoe/backends/simd.hpp>
#include <hmoe/dispatch/blocked.hpp>
#include <hmoe/dispatch/looped.hpp>
#include <hmoe/dispatch/per_token.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/dispatch/sorted.hpp>
#include <hmoe/routing/weightings/on_input_side.hpp>
#include <hmoe/routing/weightings/renormalized.hpp>

#include "dispatch/strategies.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <type_traits>

namespace {

/// backends::simd that computes whole banks at once however small they are, and one that never does.
struct whole_banks : hmoe::backends::simd<> {
  template <class Bank> static auto takes_bank(const Bank&) noexcept {
    return std::bool_constant<hmoe::backends::simd_detail::feed_forward<Bank>>{};
  }
};
struct products_only : hmoe::backends::simd<> {
  static std::false_type takes_bank(const auto&) noexcept { return {}; }
};

using hmoe::routing::on_input_side;
using hmoe::routing::renormalized;
template <class T, class Weighting>
using top_2 =
    hmoe::routing::router<hmoe::routing::linear<T, hmoe::routing::softmax>, hmoe::routing::top_k<>, Weighting>;

template <class T, class Weighting, class Backend, class Dispatch>
void check(const Dispatch& dispatch, const Backend& backend) {
  const top_2<T, Weighting> router(10, 6, 2);
  const auto oracle = support::make_layer<T>(hmoe::dispatch::dense{}, router);
  const auto layer = support::make_layer<T>(dispatch, router);
  for (const std::size_t tokens : {0U, 1U, 3U, 64U, 300U}) {
    CAPTURE(tokens);
    const auto expected = support::run_passes(oracle, hmoe::context{products_only{}}, tokens);
    for (const std::size_t threads : {1U, 3U}) {
      CAPTURE(threads);
      hmoe::workspace memory;
      const hmoe::context ctx{backend, hmoe::executors::openmp{threads}, memory};
      const auto got = support::run_passes(layer, ctx, tokens);
      CHECK(support::same_bits(got.y, expected.y));
      CHECK(support::same_bits(got.inferred, expected.y));
      CHECK(support::same_bits(got.dx, expected.dx));
      CHECK(support::same_bits(got.gradients, expected.gradients));
      CHECK(memory.peak() <= layer.workspace_bytes(ctx, tokens));
    }
  }
}
template <class Dispatch> void check_all(const Dispatch& dispatch) {
  check<float, renormalized>(dispatch, whole_banks{});
  check<float, on_input_side<renormalized>>(dispatch, whole_banks{});
  check<float, renormalized>(dispatch, products_only{});
}

} // namespace

TEST_CASE("strategies on weights as they are") {
  check_all(hmoe::dispatch::sorted{});
  check_all(hmoe::dispatch::scattered{});
  check_all(hmoe::dispatch::per_token{});
  check_all(hmoe::dispatch::blocked<5>{});
  check_all(hmoe::dispatch::looped{});
}

TEST_CASE("and in double, where rows are scattered and permuted") {
  check<double, renormalized>(hmoe::dispatch::scattered{}, whole_banks{});
  check<double, on_input_side<renormalized>>(hmoe::dispatch::sorted{}, whole_banks{});
}

TEST_CASE("scattered makes no permuted copies of wide experts' rows, in inference and in training") {
  using bank = hmoe::experts::glu_bank<float, hmoe::experts::silu>;
  const auto announced = [](auto dispatch, auto router) {
    hmoe::moe_layer layer{hmoe::expert_set{bank(512, {200, 300, 150, 250})}, router, dispatch};
    return layer.workspace_bytes(hmoe::context{hmoe::backends::simd<>{}}, 20'000);
  };
  const hmoe::routing::top_k_router<float> router(512, 4, 2);
  constexpr std::size_t copy = 40'000UL * 512 * sizeof(float);
  CHECK(announced(hmoe::dispatch::sorted{}, router) > 3 * copy);
  CHECK(announced(hmoe::dispatch::scattered{}, router) < copy / 2);
}
