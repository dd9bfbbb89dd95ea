// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/arrays.hpp>
#include <hmoe/backends/cuda/device_router.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>

namespace hmoe::backends::cuda_detail {

/// Device memory that router_forward uses while it runs, aligned to 256 bytes.
template <class View> [[nodiscard]] std::size_t router_forward_bytes(const View& router, std::size_t tokens);

/// x [tokens × d], rows x_stride values apart (S: float, bfloat16 or half) → trace.logits, trace.probabilities and the
/// assignment. A token whose entries would lie beyond assigned.capacity has none, nor has any behind it, and
/// status->entries_needed says how many there are. A logit that is NaN or infinite raises status->non_finite_logit and
/// shows as NaN in the weights of its token, or in its logits' sum where the weighting ignores it.
/// trace.tokens_per_expert is build_plan's to write.
template <class S, class View>
void router_forward(const View& router, const S* x, std::size_t x_stride, const trace_arrays& trace,
                    const assignment_arrays& assigned, device_status* status, std::byte* workspace,
                    cudaStream_t stream);

} // namespace hmoe::backends::cuda_detail
