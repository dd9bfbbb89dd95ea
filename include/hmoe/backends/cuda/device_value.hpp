// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/backends/cuda/memory.hpp>
#include <hmoe/backends/cuda/stream.hpp>

#include <span>

namespace hmoe::backends {

/// One number in device memory, for what must change between the launches of a CUDA graph, such as a learning rate:
/// passes and steps that read it take its value when they run, not when they are queued.
template <class T> class device_value {
public:
  explicit device_value(const executors::cuda_stream& stream, T value = {}) { set(stream, value); }

  /// Takes another value, in the order of the stream.
  void set(const executors::cuda_stream& stream, T value) { memory_.assign(stream, std::span<const T>(&value, 1)); }
  void set_zero(const executors::cuda_stream& stream) { memory_.set_zero(stream); }
  /// Waits for the stream.
  [[nodiscard]] T read(const executors::cuda_stream& stream) const {
    T value{};
    memory_.read(stream, std::span<T>(&value, 1));
    stream.synchronize();
    return value;
  }
  [[nodiscard]] T* data() noexcept { return memory_.data(); }
  [[nodiscard]] const T* data() const noexcept { return memory_.data(); }

private:
  device_buffer<T> memory_;
};

} // namespace hmoe::backends

#include <hmoe/core/macros_on.hpp>
