// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/ffn_arrays.hpp>
#include <hmoe/backends/cuda/stream.hpp>
#include <hmoe/backends/cuda/workspace.hpp>
#include <hmoe/execution/context.hpp>

#include <memory>
#include <utility>

namespace hmoe {

namespace backends {

/// How the products of float layers are computed: float_math::f32 on the CUDA cores, float_math::tf32 on tensor cores.
using cuda_detail::float_math;
/// The tiles of the experts' products, for callers who have measured: the same bits with each.
using cuda_detail::tile_size;

/// Computes on an NVIDIA GPU of compute capability 8.0 or above. It has no products to call from the host: a layer is
/// copied to the device (copy_to) and runs there as a whole.
struct cuda {
  float_math math = float_math::f32;
  tile_size tiles = tile_size::automatic;
};

} // namespace backends

/// The context of passes on a device: reads as that of the host, context gpu{backends::cuda{},
/// executors::cuda_stream{}}. The device is that of the stream: the one that was current where the stream was made.
/// Passes make it current while they run, and then again the one that was. Passes only queue work; wait with
/// synchronize().
template <> class context<backends::cuda, executors::cuda_stream> {
public:
  using backend_type = backends::cuda;
  using executor_type = executors::cuda_stream;

  /// With a workspace of its own, which grows as passes need it.
  explicit context(backends::cuda backend = {}, executors::cuda_stream stream = {})
      : backend_(backend), stream_(std::move(stream)), owned_(std::make_unique<backends::device_workspace>()),
        workspace_(owned_.get()) {
    ask_device();
  }
  /// With the caller's workspace, which must outlive the context.
  context(backends::cuda backend, executors::cuda_stream stream, backends::device_workspace& memory)
      : backend_(backend), stream_(std::move(stream)), workspace_(&memory) {
    ask_device();
  }

  [[nodiscard]] const backends::cuda& backend() const noexcept { return backend_; }
  [[nodiscard]] const executors::cuda_stream& executor() const noexcept { return stream_; }
  [[nodiscard]] backends::device_workspace& workspace() const noexcept { return *workspace_; }
  [[nodiscard]] cudaStream_t stream() const noexcept { return stream_.get(); }
  void synchronize() const { stream_.synchronize(); }
  /// The ordinal of the device.
  [[nodiscard]] int device() const noexcept { return stream_.device(); }

  /// Ten times the compute capability: 80 for A100, 90 for H100.
  [[nodiscard]] int compute_capability() const noexcept { return capability_; }
  [[nodiscard]] int multiprocessors() const noexcept { return multiprocessors_; }

private:
  void ask_device() {
    using backends::cuda_detail::require_cuda;
    const int device = stream_.device();
    int major = 0, minor = 0;
    require_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "asking device ", device);
    require_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "asking device ", device);
    require_cuda(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device), "asking device ",
                 device);
    capability_ = 10 * major + minor;
    require(capability_ >= 80, "device ", device, " has compute capability ", major, ".", minor,
            ", backends::cuda needs 8.0");
  }

  backends::cuda backend_;
  executors::cuda_stream stream_;
  std::unique_ptr<backends::device_workspace> owned_;
  backends::device_workspace* workspace_;
  int capability_ = 0, multiprocessors_ = 0;
};

context(backends::cuda) -> context<backends::cuda, executors::cuda_stream>;
context(backends::cuda, executors::cuda_stream, backends::device_workspace&)
    -> context<backends::cuda, executors::cuda_stream>;

namespace backends {
/// The one context that device layers run in.
using cuda_context = context<cuda, executors::cuda_stream>;
} // namespace backends

} // namespace hmoe

#include <hmoe/core/macros_on.hpp>
