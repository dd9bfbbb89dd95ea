// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#if !__has_include(<nccl.h>)
#error "hmoe/parallel/nccl.hpp needs NCCL, with CUDA: install them and link hmoe::nccl"
#endif

#include <hmoe/core/error.hpp>
#include <hmoe/parallel/communicator.hpp>

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace hmoe::communicators {

/// NCCL's type of values that are added up.
template <summed_value T> [[nodiscard]] constexpr ncclDataType_t nccl_type() noexcept {
  return type_of<T>(ncclFloat32, ncclFloat64, ncclInt32, ncclInt64, ncclUint32, ncclUint64);
}

namespace detail {

inline void check_nccl(ncclResult_t result, const char* function) {
  require(result == ncclSuccess, "communicators::nccl: ", function, ": ", ncclGetErrorString(result));
}
inline void check_cuda(cudaError_t result, const char* function) {
  require(result == cudaSuccess, "communicators::nccl: ", function, ": ", cudaGetErrorString(result));
}
/// Whether kernels can read it where it is.
[[nodiscard]] inline bool on_device(const void* memory) {
  if (memory == nullptr)
    return true;
  cudaPointerAttributes found{};
  check_cuda(cudaPointerGetAttributes(&found, memory), "cudaPointerGetAttributes");
  return found.type == cudaMemoryTypeDevice || found.type == cudaMemoryTypeManaged;
}

/// The memory of an operation as a GPU can reach it: itself, or, for memory of the host, device memory in its place.
class device_memory {
public:
  device_memory() = default;
  device_memory(const void* memory, std::size_t bytes, cudaStream_t stream)
      : host_(const_cast<void*>(memory)), bytes_(bytes), stream_(stream) {
    if (bytes == 0 || on_device(memory))
      device_ = host_;
    else
      check_cuda(cudaMallocAsync(&device_, bytes, stream), "cudaMallocAsync");
  }
  device_memory(device_memory&& other) noexcept
      : host_(other.host_), device_(std::exchange(other.device_, nullptr)), bytes_(std::exchange(other.bytes_, 0)),
        stream_(other.stream_) {}
  device_memory& operator=(device_memory&&) = delete;
  ~device_memory() {
    if (staged())
      static_cast<void>(cudaFreeAsync(device_, stream_));
  }

  [[nodiscard]] bool staged() const noexcept { return bytes_ != 0 && device_ != host_; }
  [[nodiscard]] std::byte* data() const noexcept { return static_cast<std::byte*>(device_); }
  void bring() const { copy(device_, host_, cudaMemcpyHostToDevice); }
  void take_back() const { copy(host_, device_, cudaMemcpyDeviceToHost); }

private:
  void copy(void* to, const void* from, cudaMemcpyKind kind) const {
    if (staged())
      check_cuda(cudaMemcpyAsync(to, from, bytes_, kind, stream_), "cudaMemcpyAsync");
  }

  void* host_ = nullptr;
  void* device_ = nullptr;
  std::size_t bytes_ = 0;
  cudaStream_t stream_ = nullptr;
};

} // namespace detail

/// Ranks of an NCCL communicator, one for each GPU. Operations run on one stream, in the order in which they began:
/// that of the context whose kernels make and read the values (context.stream() of backends::cuda). Spans may be of
/// device or managed memory, which is used where it is, or of the host's, which goes through device memory that the
/// stream allocates. After finish() values in memory of the host or in managed memory are there; those in device memory
/// are there for what the stream runs from then on, and the host has not waited. all_to_all is a group of ncclSend and
/// ncclRecv, whose counts have 64 bits. An error that NCCL or CUDA returns is an hmoe::error with its text. NCCL has
/// the order of sums. Copies are the same communicator. Needs NCCL 2.7 and CUDA 11.2. It has not run on a GPU yet: its
/// tests run it with NCCL's functions replaced by threads.
class nccl : public waiting_forms<nccl> {
public:
  /// Both stay the caller's, and must outlive this and what it has begun. The GPU of `borrowed` must be the current one
  /// in all calls.
  nccl(ncclComm_t borrowed, cudaStream_t stream) : comm_(borrowed), stream_(stream) {
    int rank = 0, size = 0;
    detail::check_nccl(ncclCommUserRank(borrowed, &rank), "ncclCommUserRank");
    detail::check_nccl(ncclCommCount(borrowed, &size), "ncclCommCount");
    rank_ = static_cast<std::size_t>(rank);
    size_ = static_cast<std::size_t>(size);
  }

  [[nodiscard]] std::size_t rank() const noexcept { return rank_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] ncclComm_t handle() const noexcept { return comm_; }
  [[nodiscard]] cudaStream_t stream() const noexcept { return stream_; }

  class pending {
  public:
    pending(pending&& other) noexcept
        : comm_(other.comm_), stream_(other.stream_), send_(std::move(other.send_)),
          receive_(std::move(other.receive_)), waits_(other.waits_), open_(std::exchange(other.open_, false)) {}
    pending& operator=(pending&&) = delete;
    ~pending() {
      if (open_)
        static_cast<void>(cudaStreamSynchronize(stream_));
    }
    void finish() {
      if (!std::exchange(open_, false))
        return;
      receive_.take_back();
      if (waits_)
        detail::check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
      ncclResult_t result = ncclSuccess;
      detail::check_nccl(ncclCommGetAsyncError(comm_, &result), "ncclCommGetAsyncError");
      detail::check_nccl(result, "an operation that had begun");
    }

  private:
    friend class nccl;
    pending(const nccl& self, const void* send, std::size_t sent, void* receive, std::size_t received)
        : comm_(self.comm_), stream_(self.stream_), send_(send, sent, stream_), receive_(receive, received, stream_),
          waits_(host_reaches(send, sent) || host_reaches(receive, received)) {
      send_.bring();
    }
    [[nodiscard]] static bool host_reaches(const void* memory, std::size_t bytes) {
      if (bytes == 0)
        return false;
      cudaPointerAttributes found{};
      detail::check_cuda(cudaPointerGetAttributes(&found, memory), "cudaPointerGetAttributes");
      return found.type != cudaMemoryTypeDevice;
    }

    ncclComm_t comm_;
    cudaStream_t stream_;
    detail::device_memory send_, receive_;
    bool waits_; ///< the host may read what comes, or write over what goes
    bool open_ = true;
  };

  template <message_value T>
  [[nodiscard]] pending begin_all_to_all(std::span<const std::type_identity_t<T>> send, std::span<T> receive) const {
    lengths::check_equal_parts(size_, send.size(), receive.size());
    const std::size_t bytes = send.size_bytes() / size_;
    const auto each = [&](std::size_t) { return bytes; };
    return exchange(send.data(), send.size_bytes(), each, receive.data(), receive.size_bytes(), each);
  }

  template <message_value T>
  [[nodiscard]] pending begin_all_to_all(std::span<const std::type_identity_t<T>> send,
                                         std::span<const std::size_t> send_rows, std::span<T> receive,
                                         std::span<const std::size_t> receive_rows, std::size_t columns = 1) const {
    lengths::check_rows(size_, "send", send.size(), send_rows, columns);
    lengths::check_rows(size_, "receive", receive.size(), receive_rows, columns);
    require(send_rows[rank_] == receive_rows[rank_], "all_to_all: rank ", rank_, " expects ", receive_rows[rank_],
            " rows of rank ", rank_, ", which sends ", send_rows[rank_]);
    const std::size_t row = columns * sizeof(T);
    return exchange(
        send.data(), send.size_bytes(), [&](std::size_t p) { return send_rows[p] * row; }, receive.data(),
        receive.size_bytes(), [&](std::size_t p) { return receive_rows[p] * row; });
  }

  template <summed_value T> [[nodiscard]] pending begin_all_reduce(std::span<T> values) const {
    pending result(*this, nullptr, 0, values.data(), values.size_bytes());
    result.receive_.bring();
    std::byte* const data = result.receive_.data();
    if (!values.empty())
      detail::check_nccl(ncclAllReduce(data, data, values.size(), nccl_type<T>(), ncclSum, comm_, stream_),
                         "ncclAllReduce");
    return result;
  }

  template <message_value T>
  [[nodiscard]] pending begin_all_gather(std::span<const std::type_identity_t<T>> own, std::span<T> all) const {
    lengths::check_gathered(size_, own.size(), all.size());
    pending result(*this, own.data(), own.size_bytes(), all.data(), all.size_bytes());
    if (!own.empty())
      detail::check_nccl(
          ncclAllGather(result.send_.data(), result.receive_.data(), own.size_bytes(), ncclUint8, comm_, stream_),
          "ncclAllGather");
    return result;
  }

private:
  /// Messages from and to each rank: sent(p) and received(p) bytes, one part behind the other.
  template <class Sent, class Received>
  [[nodiscard]] pending exchange(const void* send, std::size_t send_bytes, const Sent& sent, void* receive,
                                 std::size_t receive_bytes, const Received& received) const {
    pending result(*this, send, send_bytes, receive, receive_bytes);
    const std::byte* from = result.send_.data();
    std::byte* to = result.receive_.data();
    detail::check_nccl(ncclGroupStart(), "ncclGroupStart");
    ncclResult_t first = ncclSuccess; // a group that was begun must be ended
    cudaError_t copied = cudaSuccess;
    for (std::size_t p = 0; p < size_; ++p) {
      const std::size_t out = sent(p), in = received(p);
      const int peer = static_cast<int>(p);
      if (p == rank_ && out != 0)
        copied = cudaMemcpyAsync(to, from, out, cudaMemcpyDeviceToDevice, stream_);
      if (p != rank_ && out != 0 && first == ncclSuccess)
        first = ncclSend(from, out, ncclUint8, peer, comm_, stream_);
      if (p != rank_ && in != 0 && first == ncclSuccess)
        first = ncclRecv(to, in, ncclUint8, peer, comm_, stream_);
      from += out;
      to += in;
    }
    const ncclResult_t ended = ncclGroupEnd();
    detail::check_nccl(first, "ncclSend or ncclRecv");
    detail::check_nccl(ended, "ncclGroupEnd");
    detail::check_cuda(copied, "cudaMemcpyAsync");
    return result;
  }

  ncclComm_t comm_;
  cudaStream_t stream_;
  std::size_t rank_ = 0, size_ = 1;
};

} // namespace hmoe::communicators

#include <hmoe/core/macros_on.hpp>
