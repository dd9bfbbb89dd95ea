// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/arrays.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>

namespace hmoe::backends::cuda_detail {

/// Device memory that build_plan uses while it runs, aligned to 256 bytes.
[[nodiscard]] inline std::size_t build_plan_bytes(std::size_t tokens, std::size_t experts);

/// dispatch::build_plan on the device: a stable counting sort of the entries by expert. plan.experts counts shared
/// experts too. Slots and entries from the end of the assignment up to the capacity become no_index.
/// tokens_per_expert [routed]: how many tokens the first `routed` experts have, for trace_arrays; may be null.
inline void build_plan(const assignment_arrays& assigned, const plan_arrays& plan, index_t* tokens_per_expert,
                       index_t routed, std::byte* workspace, cudaStream_t stream);

} // namespace hmoe::backends::cuda_detail
