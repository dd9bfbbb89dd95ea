// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/device_router.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>

namespace hmoe::backends::cuda_detail {

/// Device memory that router_backward uses while it runs, aligned to 256 bytes.
template <class View> [[nodiscard]] std::size_t router_backward_bytes(const View& router, std::size_t tokens);

/// From d_weights [entries of the assignment] = ∂L/∂weights and the trace's sinks (null: zero):
///   dx [tokens × d] += ∂L/∂x, rows dx_stride apart, in float;  gradients += ∂L/∂parameters
/// The sinks stay as they are.
template <class S, class View>
void router_backward(const View& router, const S* x, std::size_t x_stride, const trace_arrays& trace,
                     const assignment_arrays& assigned, const float* d_weights, float* dx, std::size_t dx_stride,
                     const router_gradient_arrays& gradients, std::byte* workspace, cudaStream_t stream);

} // namespace hmoe::backends::cuda_detail
