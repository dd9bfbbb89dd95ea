// SPDX-License-Identifier: MIT
// Plans on the device against those of the host; and what a router does when the assignment has too little room.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/routing/presets.hpp>

#include "routed.cuh"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <random>
#include <string>
#include <vector>

using namespace hmoe;
namespace kernels = hmoe::backends::cuda_detail;

namespace {

/// The plan of an assignment with `spare` room beyond its entries. chosen(token, expert) says who goes where.
template <class Chosen> void check_plan(std::size_t tokens, std::size_t experts, std::size_t spare, Chosen&& chosen) {
  assignment<float> assigned;
  assigned.resize_tokens(tokens);
  std::vector<index_t> ids;
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t e = 0; e < experts; ++e)
      if (chosen(t, e))
        ids.push_back(static_cast<index_t>(e));
    assigned.offsets()[t + 1] = static_cast<index_t>(ids.size());
  }
  assigned.resize_entries();
  std::copy(ids.begin(), ids.end(), assigned.experts().data());
  plan expected;
  dispatch::build_plan(assigned, experts, expected);

  const std::size_t entries = ids.size(), capacity = entries + spare, routed = experts - experts / 4;
  ids.resize(capacity, 12345); // never looked at
  const on_device::array<index_t> offsets(std::vector<index_t>(assigned.offsets().begin(), assigned.offsets().end()));
  const on_device::array<index_t> experts_of(ids);
  on_device::routed device(tokens, routed, experts, capacity);
  device.assigned.offsets = offsets.data();
  device.assigned.experts = experts_of.data();
  const on_device::array<std::byte> workspace(kernels::build_plan_bytes(tokens, experts));
  kernels::build_plan(device.assigned, device.plan, device.tokens_per_expert.data(), static_cast<index_t>(routed),
                      workspace.data(), nullptr);
  kernels::require_cuda(cudaDeviceSynchronize(), "plan");

  INFO("tokens ", tokens, ", experts ", experts, ", entries ", entries);
  const auto padded = [&](vector_view<const index_t> values) {
    std::vector<index_t> result(values.begin(), values.end());
    result.resize(capacity, no_index);
    return result;
  };
  const auto& plan = std::as_const(expected);
  const auto device_offsets = device.plan_offsets.download();
  CHECK(device_offsets == std::vector<index_t>(plan.offsets().begin(), plan.offsets().end()));
  CHECK(device.plan_tokens.download() == padded(plan.tokens()));
  CHECK(device.plan_entries.download() == padded(plan.entries()));
  CHECK(device.plan_slots.download() == padded(plan.slots()));
  const auto counts = device.tokens_per_expert.download();
  for (std::size_t e = 0; e < routed; ++e)
    CHECK(counts[e] == device_offsets[e + 1] - device_offsets[e]);
}

/// A router's assignment with room for `capacity` entries: whole tokens from the front, as many as fit.
template <class Router> void check_capacity(Router router, std::size_t tokens) {
  router.initialize(seed{4}, 0, {.router_stddev = 0.3});
  const on_device::batch<float> x(tokens, router.d_model(), 5);
  const on_device::parameters parameters(router);
  const on_device::on_host host(router, x.values);
  const auto& offsets = std::as_const(host.assigned).offsets();
  const index_t needed = offsets[tokens];
  for (const index_t capacity : {index_t{0}, index_t{1}, needed / 2, needed - 1, needed, needed + 3}) {
    on_device::routed device(tokens, router.routed(), router.size(), capacity);
    on_device::route(parameters.view, x, device);
    index_t kept = 0;
    while (kept < tokens && offsets[kept + 1] <= capacity)
      ++kept;
    INFO("capacity ", capacity, " of ", needed, ", kept ", kept);
    std::vector<index_t> expected(offsets.begin(), offsets.end());
    std::fill(expected.begin() + kept, expected.end(), expected[kept]);
    CHECK(device.offsets.download() == expected);
    const auto ids = device.experts_of.download();
    CHECK(std::equal(ids.begin(), ids.begin() + expected[kept], host.assigned.experts().begin()));
    CHECK(device.plan_offsets.download().back() == expected[kept]);
    const auto slots = device.plan_slots.download();
    CHECK(static_cast<index_t>(std::count(slots.begin(), slots.end(), no_index)) == capacity - expected[kept]);
    CHECK(device.raised().entries_needed == (needed > capacity ? needed : 0));
    // A later batch that fits does not take back what was raised.
    if (needed > capacity) {
      on_device::routed roomy(tokens, router.routed(), router.size(), needed);
      on_device::route(parameters.view, x, roomy, 0, device.status.data());
      CHECK(device.raised().entries_needed == needed);
    }
  }
}

} // namespace

TEST_CASE("plans are the host's") {
  std::mt19937 random(1);
  for (const std::size_t tokens : {0, 1, 31, 64, 300})
    for (const std::size_t experts : {1, 3, 40}) {
      check_plan(tokens, experts, 0, [&](std::size_t, std::size_t) { return random() % 4 == 0; });
      check_plan(tokens, experts, 70, [&](std::size_t, std::size_t e) { return e % 2 == 1 && random() % 2 == 0; });
    }
  check_plan(33, 6, 0, [](std::size_t, std::size_t) { return true; });
  check_plan(33, 6, 2, [](std::size_t, std::size_t e) { return e == 2; });
  check_plan(33, 6, 2, [](std::size_t, std::size_t) { return false; });
  // Three rounds over the experts, and more counts than are added up at a time.
  check_plan(300, 2100, 0, [&](std::size_t, std::size_t) { return random() % 500 == 0; });
}

TEST_CASE("plans of few tokens [race]") {
  check_plan(70, 9, 5, [](std::size_t t, std::size_t e) { return (t * 7 + e * 5) % 3 == 0; });
}

TEST_CASE("an assignment that is too small is cut between tokens, and says so") {
  check_capacity(routing::presets::hmoe_top_p<float>{16, 8, 0.6}, 33);
  check_capacity(routing::presets::mixtral<float>{16, 8, 2}, 20);
  check_capacity(routing::presets::qwen2_moe<float>{16, 8, 2}, 20);
}

TEST_CASE("what is too large is refused before anything is launched") {
  const routing::presets::mixtral<float> router{2, 8, 2};
  const auto view = kernels::view_router(router, nullptr);
  kernels::trace_arrays trace{};
  trace.tokens = 3'000'000'000;
  std::string text = "no error";
  try {
    kernels::router_forward<float>(view, nullptr, 2, trace, {}, nullptr, nullptr, nullptr);
  } catch (const hmoe::error& e) {
    text = e.what();
  }
  CHECK(text == "hmoe: 3000000000 tokens with up to 2 experts are too many for 32-bit entries");
  text = "no error";
  auto one = view;
  one.most = 1;
  try {
    kernels::router_forward<float>(one, nullptr, 2, trace, {}, nullptr, nullptr, nullptr);
  } catch (const hmoe::error& e) {
    text = e.what();
  }
  CHECK(text == "hmoe: 3000000000 tokens are too many for 31-bit row numbers");
  text = "no error";
  try {
    kernels::assignment_arrays assigned{};
    assigned.capacity = 4;
    kernels::build_plan(assigned, {}, nullptr, 0, nullptr, nullptr);
  } catch (const hmoe::error& e) {
    text = e.what();
  }
  CHECK(text == "hmoe: a plan with room for 0 entries was given for 4");
}
