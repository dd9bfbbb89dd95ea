// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/plan.cuh>
#include <hmoe/backends/cuda/router.cuh>
#include <hmoe/backends/reference.hpp>
#include <hmoe/core/assignment.hpp>
#include <hmoe/core/matrix.hpp>
#include <hmoe/core/plan.hpp>
#include <hmoe/core/random.hpp>
#include <hmoe/core/router_trace.hpp>
#include <hmoe/dispatch/build_plan.hpp>
#include <hmoe/execution/context.hpp>

#include "device_array.hpp"

#include <cstddef>
#include <vector>

/// A batch routed on the device, for comparison with the host.
namespace on_device {

namespace kernels = hmoe::backends::cuda_detail;
template <class T> using array = cuda_checks::device_array<T>;

/// Tokens as the device stores them, and the same values in float.
template <class S> struct batch {
  std::vector<S> stored;
  hmoe::matrix<float> values;

  batch(std::size_t tokens, std::size_t d, std::uint64_t seed) : values(tokens, d) {
    hmoe::fill_normal(hmoe::vector_view<float>(values.data(), values.size()), 1.0, hmoe::seed{seed}, 0);
    for (std::size_t i = 0; i < values.size(); ++i) {
      stored.push_back(static_cast<S>(values.data()[i]));
      values.data()[i] = static_cast<float>(stored.back());
    }
  }
};

/// The arrays of a trace, an assignment and a plan.
struct routed {
  routed(std::size_t tokens, std::size_t routed_experts, std::size_t experts, std::size_t capacity)
      : logits(tokens * routed_experts), probabilities(tokens * routed_experts),
        d_logits(std::vector<float>(tokens * routed_experts)),
        d_probabilities(std::vector<float>(tokens * routed_experts)), tokens_per_expert(routed_experts),
        offsets(tokens + 1), experts_of(capacity), weights(capacity), plan_offsets(experts + 1), plan_tokens(capacity),
        plan_entries(capacity), plan_slots(capacity), status(std::vector<kernels::device_status>(1)),
        trace{logits.data(),
              probabilities.data(),
              d_logits.data(),
              d_probabilities.data(),
              tokens_per_expert.data(),
              static_cast<hmoe::index_t>(tokens),
              static_cast<hmoe::index_t>(routed_experts)},
        assigned{offsets.data(), experts_of.data(), weights.data(), static_cast<hmoe::index_t>(tokens),
                 static_cast<hmoe::index_t>(capacity)},
        plan{plan_offsets.data(),
             plan_tokens.data(),
             plan_entries.data(),
             plan_slots.data(),
             static_cast<hmoe::index_t>(experts),
             static_cast<hmoe::index_t>(capacity)} {}
  routed(const routed&) = delete;
  routed& operator=(const routed&) = delete;

  [[nodiscard]] kernels::device_status raised() const { return status.download()[0]; }

  array<float> logits, probabilities, d_logits, d_probabilities;
  array<hmoe::index_t> tokens_per_expert, offsets, experts_of;
  array<float> weights;
  array<hmoe::index_t> plan_offsets, plan_tokens, plan_entries, plan_slots;
  array<kernels::device_status> status;
  kernels::trace_arrays trace;
  kernels::assignment_arrays assigned;
  kernels::plan_arrays plan;
};

/// The router's parameters on the device.
template <class Router> struct parameters {
  explicit parameters(const Router& router) : block(packed(router)), view(kernels::view_router(router, block.data())) {}

  static std::vector<std::byte> packed(const Router& router) {
    std::vector<std::byte> staging(kernels::router_bytes(router));
    if (!staging.empty()) // it never is: without this g++ 12 warns of writing to nothing
      kernels::pack_router(router, staging.data());
    return staging;
  }
  array<std::byte> block;
  kernels::router_view_t<Router> view;
};

/// Forward pass and plan into `out`. Tokens lie `gap` values further apart than they are long; `status`: if not out's.
template <class S, class View>
void route(const View& router, const batch<S>& x, routed& out, std::size_t gap = 0,
           kernels::device_status* status = nullptr) {
  const std::size_t tokens = x.values.rows(), d = x.values.cols(), stride = d + gap;
  std::vector<S> rows(tokens * stride);
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t c = 0; c < d; ++c)
      rows[t * stride + c] = x.stored[t * d + c];
  const array<S> device_x(rows);
  const array<std::byte> workspace(kernels::router_forward_bytes(router, tokens)),
      plan_workspace(kernels::build_plan_bytes(tokens, out.plan.experts));
  kernels::router_forward<S>(router, device_x.data(), stride, out.trace, out.assigned,
                             status == nullptr ? out.status.data() : status, workspace.data(), nullptr);
  kernels::build_plan(out.assigned, out.plan, out.trace.tokens_per_expert, out.trace.experts, plan_workspace.data(),
                      nullptr);
  kernels::require_cuda(cudaDeviceSynchronize(), "routing");
}

/// What the host's router makes of the same batch, in training.
template <class Router> struct on_host {
  on_host(const Router& router, const hmoe::matrix<float>& x) {
    const hmoe::context ctx{hmoe::backends::reference{}};
    const hmoe::workspace::scope scope(ctx.workspace());
    trace.resize(x.rows(), router.routed(), router.saved_per_token(), true);
    router.forward(ctx, x.view(), trace, assigned);
    hmoe::dispatch::build_plan(assigned, router.size(), plan);
  }
  hmoe::router_trace<float> trace;
  hmoe::assignment<float> assigned;
  hmoe::plan plan;
};

} // namespace on_device
