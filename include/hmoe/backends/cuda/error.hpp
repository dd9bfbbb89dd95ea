// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/compiler.hpp>

#if !__has_include(<cuda_runtime_api.h>)
#error                                                                                                                 \
    "hmoe/backends/cuda.hpp needs the CUDA toolkit: link hmoe::cuda, or put the folder of cuda_runtime_api.h on the include path"
#endif

#include <hmoe/core/error.hpp>

#include <cuda_runtime_api.h>

#include <source_location>
#include <string>

namespace hmoe::backends::cuda_detail {

/// Throws hmoe::error with CUDA's own words unless a call of the runtime went well; `parts` say what was tried.
/// Kernels report what went wrong in them at a later call, so the place may be behind the cause.
template <class... Parts> void require_cuda(cudaError_t code, const Parts&... parts) {
  require(code == cudaSuccess, "CUDA: ", parts..., ": ", cudaGetErrorString(code), " (", cudaGetErrorName(code), ")");
}

/// After a launch: throws when the kernel could not be started.
inline void require_launched(const char* kernel) { require_cuda(cudaGetLastError(), "launch of ", kernel); }

} // namespace hmoe::backends::cuda_detail
