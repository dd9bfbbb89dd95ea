// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#if !__has_include(<cuda_runtime_api.h>)
#error                                                                                                                 \
    "hmoe/backends/cuda.hpp needs the CUDA toolkit: link hmoe::cuda, or put the folder of cuda_runtime_api.h on the include path"
#endif

#include <hmoe/core/error.hpp>

#include <cuda_runtime_api.h>

#include <source_location>
#include <string>

namespace hmoe::backends::cuda_detail {

/// Whether a kernel that ran earlier failed: every later call on its device reports it, whoever makes that call.
[[nodiscard]] constexpr bool left_by_a_kernel(cudaError_t code) noexcept {
  return code == cudaErrorIllegalAddress || code == cudaErrorMisalignedAddress ||
         code == cudaErrorInvalidAddressSpace || code == cudaErrorIllegalInstruction || code == cudaErrorInvalidPc ||
         code == cudaErrorHardwareStackError || code == cudaErrorLaunchFailure || code == cudaErrorLaunchTimeout ||
         code == cudaErrorAssert || code == cudaErrorECCUncorrectable;
}

/// Throws hmoe::error with CUDA's own words unless a call of the runtime went well; `parts` say what was tried.
template <class... Parts> void require_cuda(cudaError_t code, const Parts&... parts) {
  require(code == cudaSuccess, "CUDA: ", parts..., ": ", cudaGetErrorString(code), " (", cudaGetErrorName(code), ")",
          left_by_a_kernel(code) ? "; a kernel that ran before this call failed, which may be one of other code" : "");
}

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
