// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/carver.hpp>
#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/memory.hpp>
#include <hmoe/backends/cuda/stream.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>

namespace hmoe::backends {

/// What a device_workspace does when a pass needs more than it has.
enum class workspace_growth {
  device,         ///< cudaFree and cudaMalloc: the host waits for the device, once for each new largest size
  stream_ordered, ///< cudaFreeAsync and cudaMallocAsync on the stream of the pass, without waiting
  none            ///< hmoe::error with the number of bytes
};

/// Scratch memory of passes on the device, which the caller owns: one block. cuda_layer::workspace_bytes tells what to
/// reserve so that no pass allocates; otherwise the block grows as `growth` says, and from the second pass of the same
/// size on nothing is allocated. Passes that share it run one after the other, on one stream.
class device_workspace {
public:
  explicit device_workspace(workspace_growth growth = workspace_growth::device) : growth_(growth) {}
  /// A block of this size on the current device.
  explicit device_workspace(std::size_t bytes, workspace_growth growth = workspace_growth::none)
      : block_(bytes), growth_(growth) {}
  /// Somebody else's block on the given device, aligned to 256 bytes, which must outlive this object. It does not grow.
  device_workspace(std::byte* block, std::size_t bytes, int device)
      : block_(device_buffer<std::byte>::borrowed(block, bytes, device)), growth_(workspace_growth::none) {
    cuda_detail::require_aligned(block, cuda_detail::device_alignment, "the workspace");
  }
  device_workspace(const device_workspace&) = delete;
  device_workspace& operator=(const device_workspace&) = delete;
  ~device_workspace() { release_stream_block(); }

  [[nodiscard]] std::size_t capacity() const noexcept { return std::max(block_.size(), stream_capacity_); }
  [[nodiscard]] workspace_growth growth() const noexcept { return growth_; }

  /// Makes the block at least this large, at once and whatever the growth policy.
  void reserve(std::size_t bytes) {
    if (bytes <= capacity())
      return;
    release_stream_block();
    block_.resize_for_overwrite(bytes);
  }
  /// The block, at least this large, for a pass on the given stream, on its device.
  [[nodiscard]] std::byte* block_for(std::size_t bytes, const executors::cuda_stream& stream) {
    const int device = stream_block_ != nullptr ? stream_.device() : block_.device();
    require(device < 0 || device == stream.device(), "the workspace lies on device ", device,
            ", the pass runs on device ", stream.device());
    if (bytes > capacity()) {
      require(growth_ != workspace_growth::none, "the pass needs ", bytes, " bytes of device workspace, reserved are ",
              capacity(), ": reserve what workspace_bytes(tokens) tells");
      const cuda_detail::device_guard guard(stream.device());
      if (growth_ == workspace_growth::device)
        reserve(bytes);
      else
        grow_in_stream_order(bytes, stream);
    }
    return stream_block_ != nullptr ? static_cast<std::byte*>(stream_block_) : block_.data();
  }

private:
  void grow_in_stream_order(std::size_t bytes, const executors::cuda_stream& stream) {
    release_stream_block();
    void* block = nullptr;
    cuda_detail::require_cuda(cudaMallocAsync(&block, bytes, stream.get()), "allocating ", bytes,
                              " bytes of workspace in the order of the stream");
    stream_block_ = block;
    stream_capacity_ = bytes;
    stream_ = stream;
  }
  void release_stream_block() noexcept {
    if (stream_block_ != nullptr)
      (void)cudaFreeAsync(std::exchange(stream_block_, nullptr), stream_.get());
    stream_capacity_ = 0;
  }

  device_buffer<std::byte> block_;
  workspace_growth growth_;
  void* stream_block_ = nullptr;
  std::size_t stream_capacity_ = 0;
  executors::cuda_stream stream_{nullptr, 0}; ///< on which the stream-ordered block was allocated
};

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
