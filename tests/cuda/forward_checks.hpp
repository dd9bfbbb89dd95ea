// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/ffn.cuh>
#include <hmoe/backends/reference.hpp>

#include "cuda/expert_checks.hpp"

#include <doctest/doctest.h>

namespace cuda_checks {

/// One bank behind others of the layer, and a batch for it.
struct forward_case {
  std::size_t tokens;
  load how;
  std::size_t x_stride; ///< of the tokens on the device; 0: the next that is aligned
};

/// Experts of other banks that come before those under test.
inline constexpr std::size_t experts_before = 2;

/// Runs the bank's experts on the device and compares outputs, hidden values and what is recorded with the bank itself
/// on backends::reference. `gate` is what the kernels get. Returns the outputs.
template <std::size_t Lanes, class S, class Bank, class DeviceWeights, class Gate>
std::vector<float> check_forward(const Bank& bank, const DeviceWeights& on_device, Gate gate, const forward_case& batch,
                                 device::ffn_options options, std::uint64_t seed = 1) {
  constexpr std::size_t before = experts_before, after = 1; // experts of other banks
  support::random_source random(seed);
  const std::size_t d = bank.d_model(), first = before;
  const routed route(random, before + bank.size() + after, batch.tokens, batch.how);
  const device_tokens<S> x(random, batch.tokens, d,
                           batch.x_stride != 0 ? batch.x_stride : device::ffn_hidden_stride<S>(d));
  const std::size_t capacity = route.arrays.capacity;
  const std::size_t hidden_stride = device::ffn_hidden_stride<S>(on_device.widest);

  std::vector<std::vector<float>> all_outputs;
  for (const bool record : {true, false}) {
    device_array<S> activated(std::vector<S>(capacity * hidden_stride)),
        projected(std::vector<S>(record ? capacity * Lanes * hidden_stride : 0));
    constexpr float untouched = 77;
    device_array<float> outputs(std::vector<float>(capacity * d, untouched));
    device_array<std::byte> workspace(device::ffn_workspace_bytes(bank.size()));
    device::ffn_forward<Lanes>(nullptr, target, route.arrays, on_device.arrays,
                               device::ffn_forward_arrays<S>{{x.values.data(), route.arrays.tokens, x.stride},
                                                             activated.data(),
                                                             projected.data(),
                                                             outputs.data(),
                                                             hidden_stride},
                               gate, workspace.data(), options);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    const auto got = outputs.download();
    const auto hidden = activated.download(), pre = projected.download();
    all_outputs.push_back(got);
    const double bound = tolerance<S>(options.math, std::max<std::size_t>(d, on_device.widest));
    for (std::size_t slot = 0; slot < capacity; ++slot) {
      std::size_t e = 0;
      while (e < bank.size() &&
             !(slot >= route.slots.offsets()[first + e] && slot < route.slots.offsets()[first + e + 1]))
        ++e;
      if (e == bank.size()) { // a slot of another bank
        for (std::size_t c = 0; c < d; ++c)
          CHECK(got[slot * d + c] == untouched);
        continue;
      }
      const std::size_t h = bank.width(e);
      matrix<float> y(1, d), saved(1, bank.saved_per_row(e));
      const auto input = std::as_const(x.host).row(route.slots.tokens()[slot]);
      bank.forward(backends::reference{}, e, matrix_view<const float>(input.data(), 1, d), y.view(), saved.view());
      CAPTURE(slot);
      CAPTURE(e);
      CHECK(relative_difference(got.data() + slot * d, std::as_const(y).row(0)) < bound);
      const auto kept = std::as_const(saved).row(0);
      CHECK(relative_difference(hidden.data() + slot * hidden_stride, kept.subview(kept.size() - h, h)) < bound);
      if (record && kept.size() > h) // low_rank keeps its hidden values only
        CHECK(relative_difference(pre.data() + slot * Lanes * hidden_stride, kept.subview(0, Lanes * h)) < bound);
    }
  }
  CHECK(all_outputs[0] == all_outputs[1]); // recording changes no bit
  return all_outputs[0];
}

/// The edges that every kind is run over.
inline const std::vector<forward_case> forward_cases{{23, load::random, 0},
                                                     {40, load::one_expert, 0},
                                                     {9, load::every_third, 0},
                                                     {0, load::random, 0},
                                                     {1, load::random, 0}};

template <class Bank> Bank random_weights(Bank bank, std::uint64_t seed = 7) {
  support::random_source random(seed);
  bank.visit_parameters([&](const parameter_info&, matrix_view<float> view) { support::fill(random, view, 0.4); });
  return bank;
}

} // namespace cuda_checks
