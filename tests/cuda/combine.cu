// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/backends/cuda/ffn.cuh>

#include "cuda/expert_checks.hpp"

#include <doctest/doctest.h>

using namespace cuda_checks;

namespace {

constexpr std::size_t experts_in_all = 6;

/// y = base + Σ w · rows, bit by bit as the kernel adds; some entries have no slot.
template <class Out> void check_combine(std::size_t tokens, std::size_t d, bool weighted, bool with_base) {
  support::random_source random(3);
  routed route(random, experts_in_all, tokens, load::random);
  const std::size_t entries = route.assigned.size(), capacity = route.arrays.capacity, y_stride = d + 3;
  std::vector<index_t> slots(capacity, no_index);
  std::copy(route.slots.slots().begin(), route.slots.slots().end(), slots.begin());
  for (std::size_t a = 0; a < entries; a += 5)
    slots[a] = no_index; // dropped
  const device_array device_slots(slots);
  const matrix<float> rows = support::random_matrix<float>(random, capacity, d),
                      base = support::random_matrix<float>(random, tokens, d);
  const device_array device_rows(std::vector<float>(rows.data(), rows.data() + rows.size())),
      device_base(std::vector<float>(base.data(), base.data() + base.size()));
  device_array<Out> y(std::vector<Out>(tokens * y_stride, narrow<Out>(9)));
  device::combine<Out>(nullptr, route.assigned_arrays, device_slots.data(), device_rows.data(),
                       weighted ? route.weights.data() : nullptr, with_base ? device_base.data() : nullptr, d, y.data(),
                       y_stride, static_cast<index_t>(d));
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  const auto got = y.download();
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t c = 0; c < d; ++c) {
      float sum = with_base ? base(t, c) : 0;
      for (std::size_t a = route.assigned.offsets()[t]; a < route.assigned.offsets()[t + 1]; ++a)
        if (slots[a] != no_index)
          sum = std::fma(weighted ? route.assigned.weights()[a] : 1.0F, rows(slots[a], c), sum);
      CHECK(static_cast<float>(got[t * y_stride + c]) == static_cast<float>(narrow<Out>(sum)));
    }
    for (std::size_t c = d; c < y_stride; ++c)
      CHECK(static_cast<float>(got[t * y_stride + c]) == 9);
  }
}

TEST_CASE("combine adds the rows of a token in ascending order of experts [race]") {
  for (const std::size_t d : {1, 33, 150})
    for (const std::size_t tokens : {0, 1, 13}) {
      check_combine<float>(tokens, d, true, false);
      check_combine<float>(tokens, d, false, true);
      check_combine<bfloat16>(tokens, d, true, true);
      check_combine<hmoe::half>(tokens, d, true, false);
    }
}

template <class S> void check_weigh(std::size_t tokens, std::size_t d, bool scale, bool dot) {
  support::random_source random(4);
  const routed route(random, experts_in_all, tokens, load::random);
  const std::size_t entries = route.assigned.size(), capacity = route.arrays.capacity;
  const device_tokens<S> from(random, tokens, d, d + 1);
  const matrix<float> rows = support::random_matrix<float>(random, capacity, d);
  const device_array device_rows(std::vector<float>(rows.data(), rows.data() + rows.size()));
  device_array<S> scaled(std::vector<S>(capacity * d, narrow<S>(9)));
  device_array<float> dots(std::vector<float>(capacity, 9));
  // Of all experts, or of those in the middle.
  const auto outer = static_cast<index_t>(tokens % 2);
  const device::expert_range some{outer, static_cast<index_t>(experts_in_all) - 2 * outer};
  const std::size_t first = route.slots.offsets()[some.first], last = route.slots.offsets()[some.first + some.count];
  device::weigh_rows<S>(nullptr, route.arrays, some, route.weights.data(), from.values.data(), from.stride,
                        scale ? scaled.data() : nullptr, dot ? device_rows.data() : nullptr,
                        dot ? dots.data() : nullptr, static_cast<index_t>(d));
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  const auto got_rows = scaled.download();
  const auto got_dots = dots.download();
  for (std::size_t slot = 0; slot < capacity; ++slot)
    for (std::size_t c = 0; c < d; ++c) {
      float expected = 9;
      if (scale && slot >= first && slot < last)
        expected =
            narrow<S>(route.assigned.weights()[route.slots.entries()[slot]] * from.host(route.slots.tokens()[slot], c));
      CHECK(static_cast<float>(got_rows[slot * d + c]) == expected);
    }
  for (std::size_t a = 0; a < capacity; ++a) {
    double expected = 9;
    const std::size_t slot = a < entries ? route.slots.slots()[a] : capacity;
    if (dot && slot >= first && slot < last) {
      expected = 0;
      const std::size_t token = route.slots.tokens()[slot];
      for (std::size_t c = 0; c < d; ++c)
        expected += static_cast<double>(from.host(token, c)) * static_cast<double>(rows(slot, c));
    }
    CHECK(got_dots[a] == doctest::Approx(expected).epsilon(1e-5));
  }
}

TEST_CASE("weigh_rows scales the rows of slots and takes their dot products [race]") {
  for (const std::size_t d : {1, 33, 150})
    for (const std::size_t tokens : {0, 1, 13}) {
      check_weigh<float>(tokens, d, true, true);
      check_weigh<bfloat16>(tokens, d, true, false);
      check_weigh<hmoe::half>(tokens, d, false, true);
    }
}

} // namespace
