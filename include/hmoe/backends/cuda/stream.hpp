// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/device.hpp>
#include <hmoe/backends/cuda/error.hpp>

#include <memory>
#include <utility>

namespace hmoe::executors {

/// Work in the order of a CUDA stream: what runs in a context on the device instead of executors::serial and openmp.
/// Calls return as soon as the work is queued. Copies share the stream.
class cuda_stream {
public:
  /// A stream of its own on the current device, which does not wait for the default stream; destroyed with the last
  /// copy.
  cuda_stream() : device_(backends::cuda_detail::current_device()) {
    cudaStream_t made = nullptr;
    backends::cuda_detail::require_cuda(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "creating a stream");
    stream_ = {made, [](cudaStream_t stream) { (void)cudaStreamDestroy(stream); }};
  }
  /// The same on another device.
  [[nodiscard]] static cuda_stream on(int device) {
    const backends::cuda_detail::device_guard guard(device);
    return {};
  }
  /// The caller's stream on the current device, which must outlive this object; nullptr is the default stream.
  explicit cuda_stream(cudaStream_t existing) : cuda_stream(existing, backends::cuda_detail::current_device()) {}
  /// The caller's stream on the given device.
  cuda_stream(cudaStream_t existing, int device) : stream_(existing, [](cudaStream_t) {}), device_(device) {}

  [[nodiscard]] cudaStream_t get() const noexcept { return stream_.get(); }
  /// The device that runs what is queued here: its ordinal, as cudaSetDevice takes it.
  [[nodiscard]] int device() const noexcept { return device_; }
  /// Waits until all that was queued is done; throws what went wrong meanwhile.
  void synchronize() const {
    backends::cuda_detail::require_cuda(cudaStreamSynchronize(get()), "waiting for a stream");
  }

private:
  std::shared_ptr<CUstream_st> stream_;
  int device_;
};

} // namespace hmoe::executors

#include <hmoe/core/macros_on.hpp>
