// SPDX-License-Identifier: MIT
// Policies of a user on the device: the selection of the README as it stands in the example, and what is refused.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/routing/selections/two_level.hpp>

#include "readme_selection.hpp"
#include "routed.cuh"

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

namespace kernels = hmoe::backends::cuda_detail;

/// Returns nonsense for tokens whose first probability is the largest: `kind` says which.
struct broken {
  int kind;
  std::size_t max_selected(std::size_t) const { return 2; }
  HMOE_HOST_DEVICE std::size_t operator()(vector_view<const float> p, vector_view<index_t> chosen) const {
    chosen[0] = 1;
    chosen[1] = 0;
    if (routing::next_preferred(p, no_index) != 0)
      return 2;
    if (kind == 0)
      return 3;
    chosen[0] = kind == 1 ? static_cast<index_t>(p.size()) : 0;
    return 2;
  }
};

namespace {

/// The device's choices are those of the selection on the host, given the device's probabilities.
template <class Selection> void check(const Selection& selection, std::size_t experts, std::size_t tokens) {
  routing::router<routing::linear<float>, Selection> router{16, experts, selection};
  router.initialize(seed{4}, 0, {.router_stddev = 0.3});
  const on_device::batch<float> x(tokens, 16, 5);
  const on_device::parameters parameters(router);
  static_assert(!kernels::routes_by_warp<decltype(parameters.view)>);
  on_device::routed device(tokens, experts, experts, tokens * router.max_selected());
  on_device::route(parameters.view, x, device);
  const auto p = device.probabilities.download();
  const auto offsets = device.offsets.download(), ids = device.experts_of.download();
  INFO("experts ", experts, ", tokens ", tokens);
  for (std::size_t t = 0; t < tokens; ++t) {
    std::vector<index_t> chosen(router.max_selected());
    std::vector<float> scratch(routing::selection_scratch(selection, experts));
    chosen.resize(routing::select_row(selection, vector_view<const float>(p.data() + t * experts, experts),
                                      vector_view<index_t>(chosen), vector_view<float>(scratch)));
    std::sort(chosen.begin(), chosen.end());
    CHECK(chosen == std::vector<index_t>(ids.begin() + offsets[t], ids.begin() + offsets[t + 1]));
  }
  CHECK(device.raised().invalid_choice == 0);
  // Weights are those of the host, too.
  const on_device::on_host host(router, x.values);
  const auto weights = device.weights.download();
  REQUIRE(host.assigned.size() == offsets[tokens]);
  for (std::size_t a = 0; a < host.assigned.size(); ++a)
    CHECK(weights[a] == doctest::Approx(host.assigned.weights()[a]).epsilon(1e-5));
}

} // namespace

TEST_CASE("the selection of the README") {
  for (const std::size_t tokens : {0, 1, 40})
    for (const std::size_t experts : {1, 2, 8, 70})
      check(near_best{.share = 0.5, .most = 3}, experts, tokens);
}

TEST_CASE("selections of the library without a form for warps") {
  const std::size_t sizes[] = {3, 5, 1};
  check(routing::two_level(sizes, 2, 2), 9, 30);
  std::vector<double> costs;
  for (int e = 0; e < 12; ++e)
    costs.push_back(e * 7 % 5);
  check(routing::cost_aware_top_p(costs, 0.7, 6.0), 12, 30);
  routing::biased<float, near_best> near_biased(8, near_best{});
  for (std::size_t e = 0; e < 8; ++e)
    near_biased.bias()[e] = static_cast<float>(e % 3) / 16;
  check(near_biased, 8, 30);
}

TEST_CASE("more experts than a warp can keep [race]") {
  routing::router<routing::linear<float>, routing::top_k<>> router{4, 1100, {3}};
  router.initialize(seed{4}, 0, {.router_stddev = 0.5});
  const on_device::batch<float> x(3, 4, 5);
  const on_device::parameters parameters(router);
  CHECK_FALSE(kernels::fits_warps(parameters.view));
  on_device::routed device(3, 1100, 1100, 9);
  on_device::route(parameters.view, x, device);
  const on_device::on_host host(router, x.values);
  CHECK(device.experts_of.download() ==
        std::vector<index_t>(host.assigned.experts().begin(), host.assigned.experts().end()));
  CHECK(device.plan_tokens.download() == std::vector<index_t>(host.plan.tokens().begin(), host.plan.tokens().end()));
}

TEST_CASE("a selection that returns nonsense is reported, and its token goes nowhere") {
  for (const int kind : {0, 1, 2}) {
    routing::router<routing::linear<float>, broken> router{8, 4, broken{kind}};
    router.initialize(seed{4}, 0, {.router_stddev = 0.5});
    const on_device::batch<float> x(20, 8, 5);
    const on_device::parameters parameters(router);
    on_device::routed device(20, 4, 4, 40);
    on_device::route(parameters.view, x, device);
    const auto p = device.probabilities.download();
    const auto offsets = device.offsets.download(), ids = device.experts_of.download();
    index_t last = 0;
    for (index_t t = 0; t < 20; ++t) {
      const bool nonsense = routing::next_preferred(vector_view<const float>(p.data() + t * 4, 4), no_index) == 0;
      if (nonsense)
        last = t + 1;
      REQUIRE(offsets[t + 1] - offsets[t] == (nonsense ? 0 : 2));
      if (!nonsense)
        CHECK(std::vector<index_t>(ids.begin() + offsets[t], ids.begin() + offsets[t] + 2) ==
              std::vector<index_t>{0, 1});
    }
    CHECK(last != 0);
    CHECK(device.raised().invalid_choice == last);
  }
}
