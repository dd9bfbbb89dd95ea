// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/layer.cuh>
#include <hmoe/backends/reference.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/hmoe.hpp>

#include "support/error_of.hpp"
#include "support/random_matrix.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// A host layer beside its form on the device.
namespace cuda_checks {

using namespace hmoe;

inline const context cpu{backends::reference{}};

/// Random values that S holds exactly, so that host and device begin with the same numbers.
template <class S> void fill_as(support::random_source& random, matrix_view<float> view, double scale) {
  support::fill(random, view, scale);
  for (std::size_t r = 0; r < view.rows(); ++r)
    for (float& value : view.row(r))
      value = static_cast<float>(static_cast<S>(value));
}
template <class S, class Layer> void randomize(Layer& layer, std::uint64_t seed) {
  support::random_source random(seed);
  layer.visit_parameters([&](const parameter_info& info, matrix_view<float> view) {
    fill_as<S>(random, view, info.expert == parameter_info::no_expert ? 1.0 : 0.5);
  });
}
template <class S> matrix<float> random_tokens(std::size_t tokens, std::size_t d, std::uint64_t seed) {
  support::random_source random(seed);
  matrix<float> x(tokens, d);
  fill_as<S>(random, x.view(), 1);
  return x;
}

template <class S> backends::device_matrix<S> to_device(const backends::cuda_context& gpu, const matrix<float>& host) {
  matrix<S> narrow(host.rows(), host.cols());
  for (std::size_t i = 0; i < host.size(); ++i)
    narrow.data()[i] = static_cast<S>(host.data()[i]);
  return {gpu.executor(), narrow.view()};
}
template <class S> matrix<float> to_host(const backends::cuda_context& gpu, const backends::device_matrix<S>& device) {
  matrix<S> narrow(device.rows(), device.cols());
  device.read(gpu.executor(), narrow.view());
  gpu.synchronize();
  matrix<float> host(device.rows(), device.cols());
  for (std::size_t i = 0; i < host.size(); ++i)
    host.data()[i] = static_cast<float>(narrow.data()[i]);
  return host;
}

/// ‖a − b‖ / (‖b‖ + 1e-6)
inline double relative_error(vector_view<const float> a, vector_view<const float> b) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    const double right = static_cast<double>(b[i]), delta = static_cast<double>(a[i]) - right;
    difference += delta * delta;
    size += right * right;
  }
  return std::sqrt(difference) / (std::sqrt(size) + 1e-6);
}
inline double relative_error(const matrix<float>& a, const matrix<float>& b) {
  return relative_error(vector_view<const float>(a.data(), a.size()), vector_view<const float>(b.data(), b.size()));
}

/// The tensor of two modules of the same shape that differs most, and by how much.
template <class Module> std::pair<double, std::string> largest_error(Module& a, Module& b) {
  std::vector<matrix_view<float>> views;
  a.visit_parameters([&](const parameter_info&, matrix_view<float> view) { views.push_back(view); });
  std::pair<double, std::string> worst{0, "none"};
  std::size_t next = 0;
  b.visit_parameters([&](const parameter_info& info, matrix_view<float> view) {
    const matrix_view<float> other = views[next++];
    const double error = relative_error(vector_view<const float>(other.data(), other.size()),
                                        vector_view<const float>(view.data(), view.size()));
    if (!(error <= worst.first))
      worst = {error, info.full_name()};
  });
  return worst;
}

/// Forward, losses and backward on both sides over the same batch; the device's twice over, to see that nothing but
/// the gradients adds up.
template <class S, class Layer, class Objective>
void check_step(Layer& host, std::size_t tokens, double tolerance, const Objective& aux, std::uint64_t seed = 1,
                const backends::cuda& backend = {}) {
  CAPTURE(tokens);
  randomize<S>(host, seed);
  const std::size_t d = host.d_model();
  const matrix<float> x = random_tokens<S>(tokens, d, seed + 1), dy = random_tokens<S>(tokens, d, seed + 2);

  matrix<float> y(tokens, d), dx(tokens, d);
  auto tape = host.make_tape(tokens);
  auto gradients = host.make_gradients();
  host.forward(cpu, x, y, tape);
  const auto losses = aux.evaluate(host, tape);
  host.backward(cpu, tape, dy, dx, gradients);

  const context gpu{backend, executors::cuda_stream{}};
  const auto layer = backends::copy_to<S>(gpu, host);
  const auto device_x = to_device<S>(gpu, x), device_dy = to_device<S>(gpu, dy);
  backends::device_matrix<S> device_y(tokens, d), device_dx(tokens, d);
  auto device_tape = layer.make_tape(tokens + 3);
  auto device_gradients = layer.make_gradients(gpu);
  for (int round = 0; round < 2; ++round) {
    device_gradients.set_zero(gpu.executor());
    layer.forward(gpu, device_x, device_y, device_tape);
    const auto device_losses = layer.evaluate(gpu, aux, device_tape);
    layer.backward(gpu, device_tape, device_dy, device_dx, device_gradients);
    layer.check(gpu);

    const auto assigned = device_tape.read_assignment(gpu.executor());
    REQUIRE(assigned.size() == tape.assignment().size());
    for (std::size_t a = 0; a < assigned.size(); ++a)
      REQUIRE(assigned.experts()[a] == tape.assignment().experts()[a]);
    CHECK(relative_error(to_host(gpu, device_y), y) < tolerance);
    CHECK(relative_error(to_host(gpu, device_dx), dx) < tolerance);
    const auto report = device_losses.read(gpu);
    const auto* expected = losses.terms.data();
    for (const loss_term& term : report.terms)
      CHECK(term.value == doctest::Approx((expected++)->value).epsilon(1e-5));
    auto all = host.make_gradients();
    layer.add_gradients(gpu, device_gradients, all);
    const auto [error, name] = largest_error(all, gradients);
    CAPTURE(name);
    CHECK(error < tolerance);
  }

  // Inference gives the bits of the training pass, and a token's bits do not depend on its batch.
  backends::device_matrix<S> alone(tokens, d);
  layer.forward(gpu, device_x, alone);
  const matrix<float> inference = to_host(gpu, alone), trained = to_host(gpu, device_y);
  for (std::size_t i = 0; i < inference.size(); ++i)
    REQUIRE(inference.data()[i] == trained.data()[i]);
  if (tokens > 1) {
    const auto& rows = std::as_const(device_x);
    layer.forward(gpu, rows.view().row_block(tokens - 1, 1), alone.view().row_block(0, 1));
    const matrix<float> single = to_host(gpu, alone);
    for (std::size_t c = 0; c < d; ++c)
      REQUIRE(single(0, c) == trained(tokens - 1, c));
  }
}

template <class S, class Layer> void check_step(Layer& host, std::size_t tokens, double tolerance) {
  check_step<S>(host, tokens, tolerance, objective{});
}

} // namespace cuda_checks
