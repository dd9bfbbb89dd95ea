// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/ffn.cuh>
#include <hmoe/backends/reference.hpp>

#include "cuda/expert_checks.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

namespace cuda_checks {

struct backward_case {
  std::size_t tokens;
  load how;
  bool on_input;          ///< gate weights are on the input: the outputs have none
  std::size_t stride = 0; ///< of tokens and dy on the device; 0: the next that is aligned
};

/// Runs forward and backward of the bank's experts on the device, and compares ∂L/∂rows and the gradient of every
/// weight, gate weight and bias with the bank itself on backends::reference.
template <std::size_t Lanes, class S, class Bank, class Weights, class Gate>
void check_backward(const Bank& bank, const Weights& weights_of, Gate gate, const backward_case& batch,
                    device::ffn_options options, std::uint64_t seed = 2) {
  constexpr std::size_t first = 1, after = 1; // experts of other banks
  support::random_source random(seed);
  const std::size_t d = bank.d_model(), stride = batch.stride != 0 ? batch.stride : device::ffn_hidden_stride<S>(d);
  const device_weights<S, Lanes> weights(weights_of(bank), first);
  const routed route(random, first + bank.size() + after, batch.tokens, batch.how);
  const std::size_t capacity = route.arrays.capacity, hidden_stride = device::ffn_hidden_stride<S>(weights.widest);
  const device_tokens<S> x(random, batch.tokens, d, stride), dy(random, batch.tokens, d, stride);

  const auto zeros = [](std::size_t n) { return std::vector<S>(n); };
  device_array<S> activated(zeros(capacity * hidden_stride)), projected(zeros(capacity * Lanes * hidden_stride)),
      d_projected(zeros(capacity * Lanes * hidden_stride)), weighted(zeros(capacity * hidden_stride));
  constexpr float untouched = 77, start = 0.5F; // gradients are added to what is there
  device_array<float> outputs(std::vector<float>(capacity * d)), d_rows(std::vector<float>(capacity * d, untouched)),
      dots(std::vector<float>(capacity * device::dot_parts(hidden_stride))),
      d_weights(std::vector<float>(capacity, untouched)), d_in(std::vector<float>(weights.in_size, start)),
      d_out(std::vector<float>(weights.out_size, start)), d_in_bias(std::vector<float>(weights.in_bias.size(), start)),
      d_out_bias(std::vector<float>(weights.out_bias.size(), start));
  device_array<std::byte> workspace(device::ffn_workspace_bytes(bank.size()));
  const device::row_source<S> source{x.values.data(), route.arrays.tokens, stride},
      d_source{dy.values.data(), route.arrays.tokens, stride};
  const device::slot_weights gates{batch.on_input ? nullptr : route.weights.data(), route.arrays.entries};
  device::ffn_forward<Lanes>(
      nullptr, target, route.arrays, weights.arrays,
      device::ffn_forward_arrays<S>{source, activated.data(), projected.data(), outputs.data(), hidden_stride}, gate,
      workspace.data(), options);
  device::ffn_backward<Lanes>(
      nullptr, target, route.arrays, weights.arrays,
      device::ffn_backward_arrays<S>{source, d_source, gates, projected.data(), d_projected.data(), weighted.data(),
                                     batch.on_input ? nullptr : dots.data(),
                                     batch.on_input ? nullptr : d_weights.data(), d_rows.data(), hidden_stride},
      device::ffn_gradient_arrays{d_in.data(), d_out.data(), d_in_bias.data(), d_out_bias.data()}, gate,
      workspace.data(), options);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);

  Bank gradients = bank;
  gradients.visit_parameters([](const parameter_info&, matrix_view<float> view) {
    for (std::size_t r = 0; r < view.rows(); ++r)
      for (float& value : view.row(r))
        value = start;
  });
  const double bound = tolerance<S>(options.math, std::max({d, Lanes * std::size_t{weights.widest}, batch.tokens}));
  // ⟨dy, W_out a⟩ has a term for each value of W_out.
  const double bound_of_weights =
      tolerance<S>(options.math, std::max(d * weights.widest, Lanes * std::size_t{weights.widest}));
  const auto got_rows = d_rows.download(), got_in = d_in.download(), got_out = d_out.download(),
             got_in_bias = d_in_bias.download(), got_out_bias = d_out_bias.download(),
             got_weights = d_weights.download();
  std::vector<bool> mine(capacity, false);
  for (std::size_t e = 0; e < bank.size(); ++e) {
    CAPTURE(e);
    const std::size_t h = bank.width(e), begin = route.slots.offsets()[first + e],
                      n = route.slots.offsets()[first + e + 1] - begin;
    matrix<float> rows(n, d), d_outputs(n, d), y(n, d), saved(n, bank.saved_per_row(e)), dx(n, d),
        scratch(n, bank.scratch_per_row(e));
    for (std::size_t r = 0; r < n; ++r) {
      const std::size_t token = route.slots.tokens()[begin + r];
      const float weight = batch.on_input ? 1 : route.assigned.weights()[route.slots.entries()[begin + r]];
      std::ranges::copy(x.host.row(token), rows.row(r).begin());
      std::ranges::transform(dy.host.row(token), d_outputs.row(r).begin(), [&](float g) { return weight * g; });
    }
    bank.forward(backends::reference{}, e, std::as_const(rows).view(), y.view(), saved.view());
    bank.backward(backends::reference{}, e, std::as_const(rows).view(), std::as_const(saved).view(),
                  std::as_const(d_outputs).view(), dx.view(), scratch.view(), gradients);
    for (std::size_t r = 0; r < n; ++r) {
      mine[begin + r] = true;
      CHECK(relative_difference(got_rows.data() + (begin + r) * d, std::as_const(dx).row(r)) < bound);
      const auto gradient_row = dy.host.row(route.slots.tokens()[begin + r]);
      const float along = std::inner_product(gradient_row.begin(), gradient_row.end(), y.row(r).begin(), 0.0F);
      if (!batch.on_input)
        CHECK(relative_difference(got_weights.data() + route.slots.entries()[begin + r],
                                  vector_view<const float>(&along, 1)) < bound_of_weights);
    }
    const auto& expected = weights_of(std::as_const(gradients));
    for (std::size_t l = 0; l < Lanes; ++l)
      for (std::size_t r = 0; r < h; ++r) {
        const float* row = got_in.data() + weights.in_offsets[e] + (l * h + r) * weights.in_stride;
        CHECK(relative_difference(row, expected.lane(e, l).row(r)) < bound);
        for (std::size_t c = d; c < weights.in_stride; ++c)
          CHECK(row[c] == start);
      }
    for (std::size_t r = 0; r < d; ++r) {
      const float* row = got_out.data() + weights.out_offsets[e] + r * weights.out_strides[e];
      CHECK(relative_difference(row, expected.output(e).row(r)) < bound);
      for (std::size_t c = h; c < weights.out_strides[e]; ++c)
        CHECK(row[c] == start);
    }
    if (expected.has_biases()) {
      for (std::size_t l = 0; l < Lanes; ++l)
        CHECK(relative_difference(got_in_bias.data() + weights.in_bias_offsets[e] + l * h,
                                  expected.lane_bias(e, l).row(0)) < bound);
      CHECK(relative_difference(got_out_bias.data() + e * d, expected.output_bias(e).row(0)) < bound);
    }
  }
  for (std::size_t slot = 0; slot < capacity; ++slot) {
    for (std::size_t c = 0; c < d && !mine[slot]; ++c)
      CHECK(got_rows[slot * d + c] == untouched);
    if (!mine[slot] || batch.on_input)
      CHECK(got_weights[slot < route.assigned.size() ? route.slots.entries()[slot] : slot] == untouched);
  }
}

} // namespace cuda_checks
