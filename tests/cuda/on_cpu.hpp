// SPDX-License-Identifier: MIT
// Included before all else where HMOE_CUDA_RUNNER builds a program (tests/cuda/CMakeLists.txt): what such a tool need
// not have of the CUDA runtime. Two devices that have one memory, the last error of a thread, copies of rows, and CUDA
// graphs: while a stream is captured, launches, copies on the device and clears are kept with their arguments, and what
// CUDA refuses there (allocating, waiting, the host's memory) is refused. allocated() tells who holds what.
#pragma once

#define HMOE_CUDA_ON_CPU 1

#include <cuda_runtime.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <map>
#include <utility>
#include <vector>

namespace on_cpu {

inline constexpr int devices = 2;
using work = std::vector<std::function<void()>>;

struct runtime {
  int current = 0;
  cudaError_t last = cudaSuccess;
  work* captured = nullptr;                                  ///< what the captured stream got, or null
  std::map<const void*, std::pair<std::size_t, int>> blocks; ///< bytes and device of each allocation
  std::map<cudaStream_t, int> streams;
  std::size_t allocations = 0, copies = 0;
};
inline runtime& now() {
  static runtime state;
  return state;
}
inline cudaError_t done(cudaError_t code) {
  if (code != cudaSuccess)
    now().last = code;
  return code;
}
inline bool on_device(const void* p) {
  const auto& blocks = now().blocks;
  auto at = blocks.upper_bound(p);
  if (at == blocks.begin())
    return false;
  --at;
  return static_cast<const char*>(p) < static_cast<const char*>(at->first) + at->second.first;
}
/// Runs or keeps work for a stream of the current device.
template <class F> cudaError_t queue(cudaStream_t stream, F f) {
  const auto at = now().streams.find(stream);
  if (at != now().streams.end() && at->second != now().current)
    return done(cudaErrorInvalidResourceHandle);
  if (now().captured != nullptr)
    now().captured->push_back(std::move(f));
  else
    f();
  return cudaSuccess;
}
inline cudaError_t refused_in_capture() {
  return now().captured != nullptr ? done(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

/// Bytes that the device holds.
inline std::size_t allocated(int device) {
  std::size_t sum = 0;
  for (const auto& [p, block] : now().blocks)
    sum += block.second == device ? block.first : 0;
  return sum;
}

template <class T> cudaError_t malloc(T** p, std::size_t bytes) {
  if (refused_in_capture() != cudaSuccess)
    return cudaErrorStreamCaptureUnsupported;
  ++now().allocations;
  const cudaError_t code = ::cudaMalloc(reinterpret_cast<void**>(p), bytes);
  now().blocks[*p] = {bytes, now().current};
  return code;
}
template <class T> cudaError_t malloc_async(T** p, std::size_t bytes, cudaStream_t) { return on_cpu::malloc(p, bytes); }
inline cudaError_t free(void* p) {
  if (p != nullptr && refused_in_capture() != cudaSuccess)
    return cudaErrorStreamCaptureUnsupported;
  now().blocks.erase(p);
  return ::cudaFree(p);
}
inline cudaError_t free_async(void* p, cudaStream_t) { return on_cpu::free(p); }

inline cudaError_t copy(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t bytes,
                        std::size_t rows, cudaStream_t stream) {
  ++now().copies;
  if (!(on_device(to) && on_device(from)) && refused_in_capture() != cudaSuccess)
    return cudaErrorStreamCaptureUnsupported;
  const auto run = [=] {
    for (std::size_t r = 0; r < rows; ++r)
      std::memmove(static_cast<char*>(to) + r * to_pitch, static_cast<const char*>(from) + r * from_pitch, bytes);
  };
  if (now().captured != nullptr)
    return queue(stream, run);
  run();
  return cudaSuccess;
}
inline cudaError_t memcpy_async(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  return copy(to, 0, from, 0, bytes, 1, stream);
}
inline cudaError_t memcpy_2d_async(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                                   std::size_t bytes, std::size_t rows, cudaMemcpyKind, cudaStream_t stream) {
  return to_pitch < bytes || from_pitch < bytes ? done(cudaErrorInvalidPitchValue)
                                                : copy(to, to_pitch, from, from_pitch, bytes, rows, stream);
}
inline cudaError_t memset_async(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return queue(stream, [=] { std::memset(to, value, bytes); });
}

template <class... Parameters, class... Arguments>
cudaError_t launch_kernel_ex(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                             Arguments&&... arguments) {
  const cudaLaunchConfig_t kept = *config;
  return [&](Parameters... values) {
    return queue(kept.stream, [kept, kernel, values...] {
      cudaLaunchConfig_t config = kept;
      config.stream = nullptr;
      (void)::cudaLaunchKernelEx(&config, kernel, Parameters(values)...);
    });
  }(std::forward<Arguments>(arguments)...);
}

inline cudaError_t get_device_count(int* count) {
  *count = devices;
  return cudaSuccess;
}
inline cudaError_t get_device(int* device) {
  *device = now().current;
  return cudaSuccess;
}
inline cudaError_t set_device(int device) {
  if (device < 0 || device >= devices)
    return done(cudaErrorInvalidDevice);
  now().current = device;
  return cudaSuccess;
}
inline cudaError_t peek_at_last_error() { return now().last; }
inline cudaError_t get_last_error() { return std::exchange(now().last, cudaSuccess); }
inline cudaError_t stream_create_with_flags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(new char);
  now().streams[*stream] = now().current;
  return cudaSuccess;
}
inline cudaError_t stream_destroy(cudaStream_t stream) {
  now().streams.erase(stream);
  delete reinterpret_cast<char*>(stream);
  return cudaSuccess;
}
inline cudaError_t stream_synchronize(cudaStream_t) { return refused_in_capture(); }

inline cudaError_t stream_begin_capture(cudaStream_t, cudaStreamCaptureMode) {
  now().captured = new work;
  return cudaSuccess;
}
inline cudaError_t stream_end_capture(cudaStream_t, cudaGraph_t* graph) {
  *graph = reinterpret_cast<cudaGraph_t>(std::exchange(now().captured, nullptr));
  return cudaSuccess;
}
inline cudaError_t graph_instantiate(cudaGraphExec_t* ready, cudaGraph_t graph, unsigned long long = 0) {
  *ready = reinterpret_cast<cudaGraphExec_t>(new work(*reinterpret_cast<work*>(graph)));
  return cudaSuccess;
}
inline cudaError_t graph_launch(cudaGraphExec_t ready, cudaStream_t) {
  for (const auto& step : *reinterpret_cast<work*>(ready))
    step();
  return cudaSuccess;
}
inline cudaError_t graph_destroy(cudaGraph_t graph) {
  delete reinterpret_cast<work*>(graph);
  return cudaSuccess;
}
inline cudaError_t graph_exec_destroy(cudaGraphExec_t ready) {
  delete reinterpret_cast<work*>(ready);
  return cudaSuccess;
}

} // namespace on_cpu

#define cudaMalloc on_cpu::malloc
#define cudaMallocAsync on_cpu::malloc_async
#define cudaFree on_cpu::free
#define cudaFreeAsync on_cpu::free_async
#define cudaMemcpyAsync on_cpu::memcpy_async
#define cudaMemcpy2DAsync on_cpu::memcpy_2d_async
#define cudaMemsetAsync on_cpu::memset_async
#define cudaLaunchKernelEx on_cpu::launch_kernel_ex
#define cudaGetDeviceCount on_cpu::get_device_count
#define cudaGetDevice on_cpu::get_device
#define cudaSetDevice on_cpu::set_device
#define cudaPeekAtLastError on_cpu::peek_at_last_error
#define cudaGetLastError on_cpu::get_last_error
#define cudaStreamCreateWithFlags on_cpu::stream_create_with_flags
#define cudaStreamDestroy on_cpu::stream_destroy
#define cudaStreamSynchronize on_cpu::stream_synchronize
#define cudaStreamBeginCapture on_cpu::stream_begin_capture
#define cudaStreamEndCapture on_cpu::stream_end_capture
#define cudaGraphInstantiate on_cpu::graph_instantiate
#define cudaGraphLaunch on_cpu::graph_launch
#define cudaGraphDestroy on_cpu::graph_destroy
#define cudaGraphExecDestroy on_cpu::graph_exec_destroy
