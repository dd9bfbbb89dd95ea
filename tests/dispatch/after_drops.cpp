// SPDX-License-Identifier: MIT
// Values and gradients through a layer are in tests/layer/moe_layer_capacity.cpp.
#include <hmoe/core/tape.hpp>
#include <hmoe/dispatch/after_drops.hpp>

#include <doctest/doctest.h>

#include <memory_resource>
#include <vector>

using hmoe::no_index;

TEST_CASE("weights of the kept entries by hand, the gradient by hand, and the router's weights back afterwards") {
  hmoe::tape<double> tape;
  tape.trace().resize(3, 3, 0, true); // experts 0 to 2 are routed, 3 is shared
  auto& assigned = tape.assignment();
  assigned.resize_tokens(3);
  const std::vector<hmoe::index_t> ids{0, 1, 2, 3, 0, 3, 1, 3};
  const std::vector<double> weights{0.5, 0.2, 0.1, 1, 0.7, 1, 0.4, 1};
  assigned.offsets()[1] = 4, assigned.offsets()[2] = 6, assigned.offsets()[3] = 8;
  assigned.resize_entries();
  for (std::size_t a = 0; a < 8; ++a)
    assigned.experts()[a] = ids[a], assigned.weights()[a] = weights[a];
  auto& plan = tape.plan();
  plan.resize(4, 8, 8);
  for (std::size_t a = 0; a < 8; ++a)
    plan.slots()[a] = static_cast<hmoe::index_t>(a);
  plan.slots()[1] = no_index; // token 0 loses expert 1
  plan.slots()[6] = no_index; // token 2 all that it was routed to
  {
    auto memory = hmoe::dispatch::renormalized_weights<double>::memory(std::pmr::get_default_resource(), 8);
    const hmoe::dispatch::renormalized_weights<double> scope(tape, memory);
    const auto w = assigned.weights();
    CHECK(w[0] == doctest::Approx(0.5 * 0.8 / 0.6));
    CHECK(w[2] == doctest::Approx(0.1 * 0.8 / 0.6));
    CHECK(w[0] + w[2] == doctest::Approx(0.8));
    CHECK(w[3] == 1);
    CHECK(w[4] == 0.7);
    CHECK(w[6] == 0.4);
    std::vector<double> d{2, 0, -1, 9, 5, 6, 0, 7};
    scope.backward(hmoe::vector_view<double>(d));
    const double along = (2 * 0.5 - 1 * 0.1) / 0.6; // A / K
    CHECK(d[0] == doctest::Approx((2 - along) * 0.8 / 0.6 + along));
    CHECK(d[1] == doctest::Approx(along));
    CHECK(d[2] == doctest::Approx((-1 - along) * 0.8 / 0.6 + along));
    CHECK(d[3] == 9);
    CHECK(d[4] == 5);
    CHECK(d[6] == 0);
  }
  for (std::size_t a = 0; a < 8; ++a)
    CHECK(assigned.weights()[a] == weights[a]);
}
