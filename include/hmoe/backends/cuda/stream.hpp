// SPDX-License-Identifier: MIT
#pragma once

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
  cuda_stream() {
    cudaStream_t made = nullptr;
    backends::cuda_detail::require_cuda(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "creating a stream");
    stream_ = {made, [](cudaStream_t stream) { (void)cudaStreamDestroy(stream); }};
  }
  /// The caller's stream, which must outlive this object; nullptr is the default stream.
  explicit cuda_stream(cudaStream_t existing) : stream_(existing, [](cudaStream_t) {}) {}

  [[nodiscard]] cudaStream_t get() const noexcept { return stream_.get(); }
  /// Waits until all that was queued is done; throws what went wrong meanwhile.
  void synchronize() const {
    backends::cuda_detail::require_cuda(cudaStreamSynchronize(get()), "waiting for a stream");
  }

private:
  std::shared_ptr<CUstream_st> stream_;
};

} // namespace hmoe::executors
