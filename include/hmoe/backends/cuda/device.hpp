// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/error.hpp>

namespace hmoe::backends::cuda_detail {

/// The device that is current in this thread.
[[nodiscard]] inline int current_device() {
  int device = 0;
  require_cuda(cudaGetDevice(&device), "asking for the current device");
  return device;
}

/// Makes a device current in this thread as long as the guard lives, then the one that was.
class device_guard {
public:
  explicit device_guard(int device) : before_(current_device()), changed_(device != before_) {
    if (changed_)
      require_cuda(cudaSetDevice(device), "making device ", device, " current");
  }
  device_guard(const device_guard&) = delete;
  device_guard& operator=(const device_guard&) = delete;
  ~device_guard() {
    if (changed_)
      (void)cudaSetDevice(before_);
  }

private:
  int before_;
  bool changed_;
};

} // namespace hmoe::backends::cuda_detail

#include <hmoe/core/macros_on.hpp>
