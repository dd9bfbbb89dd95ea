// SPDX-License-Identifier: MIT
#include <hmoe/backends/simd.hpp>
#include <hmoe/compress/merged_bank.hpp>
#include <hmoe/dispatch/scattered.hpp>
#include <hmoe/execution/openmp.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

#include "support/allocations.hpp"
#include "support/error_of.hpp"
#include "support/random_matrix.hpp"
#include "support/same_bits.hpp"

#include <doctest/doctest.h>

#include <utility>
#include <vector>

namespace compress = hmoe::compress;
using hmoe::matrix;

namespace {
using shared_glu = hmoe::experts::glu_bank<float, hmoe::experts::silu>;
constexpr std::size_t shared_d = 40;

/// The layer has the bits of one with a copy for each id, and its passes take what workspace_bytes says.
template <class Shared, class Copies> void check_sharing(const Shared& shared, const Copies& copies) {
  hmoe::workspace memory;
  const hmoe::context ctx{hmoe::backends::simd{}, hmoe::executors::serial{}, memory};
  support::random_source random(41);
  const auto x = support::random_matrix<float>(random, 300, shared_d);
  matrix<float> y(300, shared_d), expected(300, shared_d);
  memory.reserve(shared.workspace_bytes(ctx, 300));
  for (const std::size_t tokens : {0U, 1U, 3U, 300U}) {
    CAPTURE(tokens);
    const auto in = x.view().row_block(0, tokens);
    const auto out = y.view().row_block(0, tokens);
    CHECK(support::allocations_in([&] { shared.forward(ctx, in, out); }) == 0);
    copies.forward(ctx, in, expected.view().row_block(0, tokens));
    CHECK(support::largest_difference(out, expected.view().row_block(0, tokens)) == 0);
    const hmoe::context threads{hmoe::backends::simd{}, hmoe::executors::openmp(4)};
    shared.forward(threads, in, out);
    CHECK(support::largest_difference(out, expected.view().row_block(0, tokens)) == 0);
  }
}
} // namespace

TEST_CASE("experts that share weights have the bits of copies, as they are and packed, contiguous and scattering") {
  // Two ids of one expert that follow one another, and others in an order of their own; several experts per token.
  const std::vector<std::size_t> stored_of{2, 0, 1, 1, 0, 2, 3};
  shared_glu stored(shared_d, {24, 40, 9, 0}, hmoe::experts::biases::all);
  support::random_source random(40);
  stored.visit_parameters([&](const hmoe::parameter_info&, auto view) { support::fill(random, view, 0.4); });
  hmoe::routing::top_k_router<float> router(shared_d, stored_of.size(), 4);
  router.visit_parameters([&](const hmoe::parameter_info&, auto view) { support::fill(random, view, 0.4); });
  const compress::merged_bank<shared_glu> merged(stored, stored_of);
  const auto check = [&](auto dispatch) {
    const hmoe::moe_layer shared{hmoe::expert_set{merged}, router, dispatch};
    const hmoe::moe_layer copies{hmoe::expert_set{merged.separate()}, router, dispatch};
    check_sharing(shared, copies);
    using simd = hmoe::backends::simd<>;
    const auto packed = simd::pack<hmoe::backends::formats::q8>(shared);
    check_sharing(packed, simd::pack<hmoe::backends::formats::q8>(copies));
    CHECK(packed.experts().template bank<0>().stored().size() == 4);
    CHECK(packed.experts().bytes(1) < shared.experts().bytes(1));
  };
  check(hmoe::dispatch::sorted{});
  check(hmoe::dispatch::scattered{});
  CHECK(merged.separate().gate(4).data() != merged.separate().gate(1).data());
  CHECK(merged.width(5) == 9);
  CHECK(merged.parameter_count(0) == stored.parameter_count(2));

  CHECK(support::error_of([&] { (void)compress::merged_bank<shared_glu>(stored, {0, 1, 4, 2, 3}); }) ==
        "hmoe: expert 2 shall be stored expert 4 of 4");
  CHECK(support::error_of([&] { (void)compress::merged_bank<shared_glu>(stored, {0, 1, 3}); }) ==
        "hmoe: stored expert 2 of 4 has no id");
}
