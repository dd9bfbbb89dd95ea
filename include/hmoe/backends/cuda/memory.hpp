// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/device.hpp>
#include <hmoe/backends/cuda/error.hpp>
#include <hmoe/backends/cuda/stream.hpp>
#include <hmoe/core/matrix_view.hpp>
#include <hmoe/core/space.hpp>

#include <cstddef>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>

namespace hmoe::backends {

/// An array in device memory that only ever grows: reuse at the same or a smaller size allocates nothing. New memory
/// is not initialised. Growing waits for the device (cudaFree does). The memory is that of the device that was current
/// at the first allocation (where a stream is given: of its device), and stays there when the array grows. Memory that
/// somebody else owns can stand in for it: then it keeps that size, and is not freed.
template <class T> class device_buffer {
  static_assert(std::is_trivially_copyable_v<T>, "hmoe: device_buffer<T> holds plain values only");

public:
  device_buffer() = default;
  explicit device_buffer(std::size_t size) { resize_for_overwrite(size); }
  /// `size` values in somebody else's memory on the given device, which must outlive the buffer.
  [[nodiscard]] static device_buffer borrowed(T* data, std::size_t size, int device) noexcept {
    device_buffer buffer;
    buffer.data_ = data;
    buffer.size_ = buffer.capacity_ = size;
    buffer.device_ = device;
    buffer.owned_ = false;
    return buffer;
  }
  device_buffer(device_buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)), device_(other.device_),
        owned_(std::exchange(other.owned_, true)) {}
  device_buffer& operator=(device_buffer other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    std::swap(device_, other.device_);
    std::swap(owned_, other.owned_);
    return *this;
  }
  ~device_buffer() {
    if (owned_)
      (void)cudaFree(data_);
  }

  void resize_for_overwrite(std::size_t size) {
    if (size > capacity_)
      allocate(size, data_ == nullptr ? cuda_detail::current_device() : device_);
    size_ = size;
  }
  /// The same; the first memory is that of the stream's device.
  void resize_for_overwrite(const executors::cuda_stream& stream, std::size_t size) {
    if (size > capacity_)
      allocate(size, data_ == nullptr ? stream.device() : device_);
    size_ = size;
  }
  /// All bytes 0, in the order of the stream.
  void set_zero(const executors::cuda_stream& stream) {
    if (size_ == 0)
      return;
    const cuda_detail::device_guard guard(stream.device());
    cuda_detail::require_cuda(cudaMemsetAsync(data_, 0, size_ * sizeof(T), stream.get()), "clearing device memory");
  }
  /// As many values as given, in the order of the stream. The source may be changed when the call returns, unless it is
  /// page-locked (cudaMallocHost): then when the stream has got there.
  void assign(const executors::cuda_stream& stream, std::span<const T> values) {
    resize_for_overwrite(stream, values.size());
    if (!values.empty())
      cuda_detail::require_cuda(
          cudaMemcpyAsync(data_, values.data(), values.size_bytes(), cudaMemcpyHostToDevice, stream.get()), "copying ",
          values.size_bytes(), " bytes to the device");
  }
  /// The first values.size() values, which are there once the stream has been synchronised.
  void read(const executors::cuda_stream& stream, std::span<T> values) const {
    require(values.size() <= size_, "reading ", values.size(), " values of a device array of ", size_);
    if (!values.empty())
      cuda_detail::require_cuda(
          cudaMemcpyAsync(values.data(), data_, values.size_bytes(), cudaMemcpyDeviceToHost, stream.get()), "copying ",
          values.size_bytes(), " bytes from the device");
  }

  [[nodiscard]] T* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return size_ * sizeof(T); }
  /// The device that has the memory; −1 while there is none.
  [[nodiscard]] int device() const noexcept { return data_ == nullptr ? -1 : device_; }

private:
  void allocate(std::size_t size, int device) {
    require(size <= std::numeric_limits<std::size_t>::max() / sizeof(T) / 2, "an array of ", size, " values of ",
            sizeof(T), " bytes does not fit into memory");
    require(owned_, "an array in memory that others own has ", capacity_, " values of ", sizeof(T),
            " bytes, needed are ", size);
    const cuda_detail::device_guard guard(device);
    void* data = nullptr;
    cuda_detail::require_cuda(cudaMalloc(&data, size * sizeof(T)), "allocating ", size * sizeof(T),
                              " bytes of device memory");
    (void)cudaFree(data_);
    data_ = static_cast<T*>(data);
    capacity_ = size;
    device_ = device;
  }

  T* data_ = nullptr;
  std::size_t size_ = 0, capacity_ = 0;
  int device_ = 0;
  bool owned_ = true;
};

namespace cuda_detail {
template <class T, class From, class To>
void copy_rows(const executors::cuda_stream& stream, matrix_view<const T, From> from, matrix_view<T, To> to,
               cudaMemcpyKind kind) {
  require(from.rows() == to.rows() && from.cols() == to.cols(), "copying a matrix of ", from.rows(), " x ", from.cols(),
          " to one of ", to.rows(), " x ", to.cols());
  if (from.size() == 0)
    return;
  if (from.contiguous() && to.contiguous()) {
    require_cuda(cudaMemcpyAsync(to.data(), from.data(), from.size() * sizeof(T), kind, stream.get()), "copying ",
                 from.size() * sizeof(T), " bytes");
    return;
  }
  require_cuda(cudaMemcpy2DAsync(to.data(), to.stride() * sizeof(T), from.data(), from.stride() * sizeof(T),
                                 from.cols() * sizeof(T), from.rows(), kind, stream.get()),
               "copying ", from.rows(), " rows of ", from.cols() * sizeof(T), " bytes");
}
} // namespace cuda_detail

/// An owning row-major matrix in device memory: contiguous, grow-only (see device_buffer).
template <class T> class device_matrix {
public:
  using value_type = T;

  device_matrix() = default;
  /// Not initialised.
  device_matrix(std::size_t rows, std::size_t cols) { resize_for_overwrite(rows, cols); }
  /// A copy of a host matrix.
  device_matrix(const executors::cuda_stream& stream, matrix_view<const T> host)
      : rows_(host.rows()), cols_(host.cols()) {
    assign(stream, host);
  }

  void resize_for_overwrite(std::size_t rows, std::size_t cols) {
    values_.resize_for_overwrite(rows * cols);
    rows_ = rows;
    cols_ = cols;
  }
  void resize_for_overwrite(const executors::cuda_stream& stream, std::size_t rows, std::size_t cols) {
    values_.resize_for_overwrite(stream, rows * cols);
    rows_ = rows;
    cols_ = cols;
  }
  void set_zero(const executors::cuda_stream& stream) { values_.set_zero(stream); }
  /// From and to the host, in the order of the stream (see device_buffer::assign and read).
  void assign(const executors::cuda_stream& stream, matrix_view<const T> host) {
    resize_for_overwrite(stream, host.rows(), host.cols());
    cuda_detail::copy_rows<T>(stream, host, view(), cudaMemcpyHostToDevice);
  }
  void read(const executors::cuda_stream& stream, matrix_view<T> host) const {
    cuda_detail::copy_rows<T>(stream, matrix_view<const T, device_space>(values_.data(), rows_, cols_), host,
                              cudaMemcpyDeviceToHost);
  }

  [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::size_t cols() const noexcept { return cols_; }
  [[nodiscard]] std::size_t size() const noexcept { return values_.size(); }
  [[nodiscard]] T* data() const noexcept { return values_.data(); }
  [[nodiscard]] matrix_view<T, device_space> view() noexcept { return {values_.data(), rows_, cols_}; }
  [[nodiscard]] matrix_view<const T, device_space> view() const noexcept { return {values_.data(), rows_, cols_}; }
  operator matrix_view<T, device_space>() noexcept { return view(); }
  operator matrix_view<const T, device_space>() const noexcept { return view(); }

private:
  device_buffer<T> values_;
  std::size_t rows_ = 0, cols_ = 0;
};

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
