// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/error.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>
#include <vector>

namespace cuda_checks {

/// Memory of the device, filled from and read back to vectors.
template <class T> class device_array {
public:
  device_array() = default;
  explicit device_array(const std::vector<T>& values) : device_array(values.size()) { upload(values); }
  explicit device_array(std::size_t size) : size_(size) {
    if (size != 0)
      hmoe::backends::cuda_detail::require_cuda(cudaMalloc(reinterpret_cast<void**>(&data_), size * sizeof(T)),
                                                "cudaMalloc");
  }
  device_array(const device_array&) = delete;
  device_array(device_array&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  device_array& operator=(device_array other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~device_array() { (void)cudaFree(data_); }

  [[nodiscard]] T* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  void upload(const std::vector<T>& values) {
    if (size_ != 0)
      hmoe::backends::cuda_detail::require_cuda(
          cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  [[nodiscard]] std::vector<T> download() const {
    std::vector<T> values(size_);
    if (size_ != 0)
      hmoe::backends::cuda_detail::require_cuda(
          cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return values;
  }

private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

} // namespace cuda_checks
