// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/backends/cuda/error.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

namespace on_device {

/// An array in device memory. New ones are full of 0xff: NaN as a float, no_index as an id.
template <class T> class array {
public:
  explicit array(std::size_t size) : size_(size) {
    allocate();
    hmoe::backends::cuda_detail::require_cuda(cudaMemset(data_, 0xff, bytes()), "filling");
  }
  explicit array(const std::vector<T>& values) : size_(values.size()) {
    allocate();
    hmoe::backends::cuda_detail::require_cuda(
        cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice), "copying");
  }
  array(array&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  array(const array&) = delete;
  array& operator=(const array&) = delete;
  ~array() { cudaFree(data_); }

  [[nodiscard]] T* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::vector<T> host() const {
    std::vector<T> values(size_);
    hmoe::backends::cuda_detail::require_cuda(
        cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost), "copying back");
    return values;
  }

private:
  [[nodiscard]] std::size_t bytes() const { return size_ == 0 ? sizeof(T) : size_ * sizeof(T); }
  void allocate() {
    hmoe::backends::cuda_detail::require_cuda(cudaMalloc(reinterpret_cast<void**>(&data_), bytes()), "allocating");
  }

  T* data_ = nullptr;
  std::size_t size_;
};

} // namespace on_device
