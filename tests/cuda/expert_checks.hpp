// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/ffn_arrays.hpp>
#include <hmoe/core/assignment.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/parameter.hpp>
#include <hmoe/core/plan.hpp>
#include <hmoe/core/scalar.hpp>
#include <hmoe/dispatch/build_plan.hpp>

#include "cuda/device_array.hpp"
#include "support/random_matrix.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace cuda_checks {

using namespace hmoe;
namespace device = hmoe::backends::cuda_detail;

/// What a device without a name reports (the tests do not depend on it): four multiprocessors.
inline constexpr device::launch_target target{4, 80};

template <class S> S narrow(float value) {
  if constexpr (std::is_same_v<S, float>)
    return value;
  else
    return S(value);
}

/// How tokens go to experts; the one that gets all is the last but one.
enum class load { random, one_expert, every_third };

/// An assignment and its plan, here and on the device. `experts` ids, `tokens` tokens.
struct routed {
  assignment<float> assigned;
  plan slots;
  device_array<index_t> assigned_offsets, assigned_experts, plan_offsets, plan_tokens, plan_entries, plan_slots;
  device_array<float> weights;
  device::assignment_arrays assigned_arrays;
  device::plan_arrays arrays;

  /// The device arrays have `spare` more entries than are used.
  routed(support::random_source& random, std::size_t experts, std::size_t tokens, load how, std::size_t spare = 3) {
    assigned.resize_tokens(tokens);
    std::vector<index_t> ids;
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t e = 0; e < experts; ++e)
        if (how == load::one_expert ? e + 2 == experts : (how == load::random || e % 3 == 1) && random.real(0, 1) < 0.4)
          ids.push_back(static_cast<index_t>(e));
      assigned.offsets()[t + 1] = static_cast<index_t>(ids.size());
    }
    assigned.resize_entries();
    for (std::size_t a = 0; a < ids.size(); ++a) {
      assigned.experts()[a] = ids[a];
      assigned.weights()[a] = static_cast<float>(random.real(0.1, 1));
    }
    dispatch::build_plan(std::as_const(assigned), experts, slots);
    const auto copy = [](const auto& view, std::size_t more) {
      std::vector values(view.begin(), view.end());
      values.resize(values.size() + more, static_cast<typename decltype(values)::value_type>(-1));
      return device_array(values);
    };
    const auto& a = std::as_const(assigned);
    const auto& p = std::as_const(slots);
    assigned_offsets = copy(std::vector<index_t>(a.offsets().begin(), a.offsets().end()), 0);
    assigned_experts = copy(std::vector<index_t>(a.experts().begin(), a.experts().end()), spare);
    weights = copy(std::vector<float>(a.weights().begin(), a.weights().end()), spare);
    plan_offsets = copy(std::vector<index_t>(p.offsets().begin(), p.offsets().end()), 0);
    plan_tokens = copy(std::vector<index_t>(p.tokens().begin(), p.tokens().end()), spare);
    plan_entries = copy(std::vector<index_t>(p.entries().begin(), p.entries().end()), spare);
    plan_slots = copy(std::vector<index_t>(p.slots().begin(), p.slots().end()), spare);
    const auto capacity = static_cast<index_t>(ids.size() + spare);
    assigned_arrays = {assigned_offsets.data(), assigned_experts.data(), weights.data(), static_cast<index_t>(tokens),
                       capacity};
    arrays = {plan_offsets.data(),           plan_tokens.data(),
              plan_entries.data(),           plan_slots.data(),
              static_cast<index_t>(experts), capacity};
  }
};

/// Rounds all weights of a bank to S, so that both sides compute with the same ones. Biases stay.
template <class S, class Bank> void round_weights(Bank& bank) {
  bank.visit_parameters([](const parameter_info& info, matrix_view<float> view) {
    if (info.decay)
      for (std::size_t r = 0; r < view.rows(); ++r)
        for (float& value : view.row(r))
          value = narrow<S>(value);
  });
}

/// Weights of a bank on the device. Behind the end of each row there is NaN, which nobody may read.
template <class S, std::size_t Lanes> struct device_weights {
  std::vector<index_t> widths, out_strides;
  std::vector<std::size_t> in_offsets, out_offsets, in_bias_offsets;
  std::size_t in_stride = 0, widest = 0, in_size = 0, out_size = 0, in_bias_size = 0;
  device_array<S> in, out;
  device_array<float> in_bias, out_bias;
  device_array<index_t> device_widths, device_out_strides;
  device_array<std::size_t> device_in_offsets, device_out_offsets, device_in_bias_offsets;
  device::ffn_arrays<S> arrays{};

  /// `bank` reads as a hmoe::experts::ffn_weights.
  template <class Weights> device_weights(const Weights& bank, std::size_t first_expert) {
    const std::size_t d = bank.d_model();
    in_stride = device::ffn_hidden_stride<S>(d);
    for (std::size_t e = 0; e < bank.size(); ++e) {
      const std::size_t h = bank.width(e), stride = device::ffn_hidden_stride<S>(h);
      widths.push_back(static_cast<index_t>(h));
      out_strides.push_back(static_cast<index_t>(stride));
      in_offsets.push_back(in_size);
      out_offsets.push_back(out_size);
      in_bias_offsets.push_back(in_bias_size);
      in_size += Lanes * h * in_stride;
      out_size += d * stride;
      in_bias_size += Lanes * h;
      widest = std::max(widest, h);
    }
    std::vector<S> ins(in_size, narrow<S>(std::numeric_limits<float>::quiet_NaN())), outs(out_size, ins[0]);
    if (in_stride == d)
      outs.assign(out_size, narrow<S>(std::numeric_limits<float>::quiet_NaN()));
    std::vector<float> in_biases, out_biases;
    for (std::size_t e = 0; e < bank.size(); ++e) {
      for (std::size_t l = 0; l < Lanes; ++l)
        for (std::size_t r = 0; r < bank.width(e); ++r) {
          for (std::size_t c = 0; c < d; ++c)
            ins[in_offsets[e] + (l * bank.width(e) + r) * in_stride + c] = narrow<S>(bank.lane(e, l)(r, c));
          if (bank.has_biases())
            in_biases.push_back(bank.lane_bias(e, l)(0, r));
        }
      for (std::size_t r = 0; r < d; ++r) {
        for (std::size_t c = 0; c < bank.width(e); ++c)
          outs[out_offsets[e] + r * out_strides[e] + c] = narrow<S>(bank.output(e)(r, c));
        if (bank.has_biases())
          out_biases.push_back(bank.output_bias(e)(0, r));
      }
    }
    in = device_array(ins);
    out = device_array(outs);
    in_bias = device_array(in_biases);
    out_bias = device_array(out_biases);
    device_widths = device_array(widths);
    device_out_strides = device_array(out_strides);
    device_in_offsets = device_array(in_offsets);
    device_out_offsets = device_array(out_offsets);
    device_in_bias_offsets = device_array(in_bias_offsets);
    arrays = {in.data(),
              out.data(),
              in_bias.data(),
              out_bias.data(),
              device_in_offsets.data(),
              device_out_offsets.data(),
              device_in_bias_offsets.data(),
              device_out_strides.data(),
              device_widths.data(),
              static_cast<index_t>(bank.size()),
              static_cast<index_t>(first_expert),
              static_cast<index_t>(d),
              static_cast<index_t>(in_stride)};
  }
};

/// Random tokens, rounded to S, here and on the device with that stride.
template <class S> struct device_tokens {
  matrix<float> host;
  std::size_t stride;
  device_array<S> values;

  device_tokens(support::random_source& random, std::size_t tokens, std::size_t d, std::size_t row_stride)
      : host(tokens, d), stride(row_stride) {
    support::fill(random, host.view());
    std::vector<S> all(tokens * stride, narrow<S>(std::numeric_limits<float>::quiet_NaN()));
    for (std::size_t t = 0; t < tokens; ++t)
      for (std::size_t c = 0; c < d; ++c) {
        all[t * stride + c] = narrow<S>(host(t, c));
        host(t, c) = all[t * stride + c];
      }
    values = device_array(all);
  }
};

/// max |a − b| / (1 + max |b|) over count values; infinity where one is not a number.
template <class A> double relative_difference(const A* a, vector_view<const float> b) {
  double largest = 0, scale = 1;
  for (const float v : b)
    scale = std::max(scale, static_cast<double>(std::abs(v)));
  for (std::size_t i = 0; i < b.size(); ++i) {
    const double difference = std::abs(static_cast<double>(static_cast<float>(a[i])) - static_cast<double>(b[i]));
    if (!(difference <= largest))
      largest = std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference;
  }
  return largest / scale;
}

/// What rounding the factors and intermediate values can cost in sums of up to `terms` terms of magnitude one: errors
/// of n terms add up to √n of one. The figures are those of a hundred terms.
template <class S> double tolerance(device::float_math math, std::size_t terms) {
  const double growth = std::sqrt(static_cast<double>(std::max<std::size_t>(terms, 100)) / 100);
  if constexpr (std::is_same_v<S, bfloat16>)
    return 2e-2 * growth;
  else if constexpr (std::is_same_v<S, hmoe::half>)
    return 2e-3 * growth;
  else
    return (math == device::float_math::tf32 ? 3e-3 : 1e-5) * growth;
}

} // namespace cuda_checks
