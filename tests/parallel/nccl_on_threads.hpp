// SPDX-License-Identifier: MIT
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <barrier>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

/// The functions of NCCL and CUDA that communicators::nccl calls, defined here: ranks are threads, device memory is
/// memory of the host that was allocated as device memory, and a stream runs what it is given when the host waits for
/// it or when NCCL's functions need it. They return errors for memory of the wrong kind and for parts that do not fit.
namespace nccl_on_threads {

struct message {
  int peer;
  void* memory;
  std::size_t bytes;
};
struct group {
  explicit group(std::size_t ranks)
      : meeting(static_cast<std::ptrdiff_t>(ranks)), sends(ranks), operand(ranks), counts(ranks) {}
  std::barrier<> meeting;
  std::vector<std::vector<message>> sends; ///< by rank
  std::vector<const void*> operand;
  std::vector<std::size_t> counts;
};

/// Memory by its first byte, with its size, over all threads.
inline std::mutex& lock() {
  static std::mutex m;
  return m;
}
inline std::map<std::byte*, std::size_t>& device() {
  static std::map<std::byte*, std::size_t> blocks;
  return blocks;
}
inline bool is_device(const void* memory, std::size_t bytes = 0) {
  const std::lock_guard guard(lock());
  auto* const at = static_cast<std::byte*>(const_cast<void*>(memory));
  auto next = device().upper_bound(at);
  if (next == device().begin())
    return false;
  --next;
  return at < next->first + next->second && at + bytes <= next->first + next->second;
}

inline thread_local std::vector<message> sends, receives;
inline thread_local ncclComm_t in_group = nullptr;
/// What the next call of NCCL's returns in place of its result, and the next that says how things went before.
inline thread_local ncclResult_t next_result = ncclSuccess, async_result = ncclSuccess;
inline thread_local std::size_t waits = 0; ///< of the host for the stream

} // namespace nccl_on_threads

struct ncclComm {
  nccl_on_threads::group* shared;
  int rank;
};

extern "C" {
using namespace nccl_on_threads; // NOLINT

cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t) {
  *memory = std::malloc(bytes);
  const std::lock_guard guard(lock());
  device()[static_cast<std::byte*>(*memory)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t) {
  const std::lock_guard guard(lock());
  if (device().erase(static_cast<std::byte*>(memory)) != 1)
    return cudaErrorInvalidValue;
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (is_device(to) != to_device || is_device(from) != from_device)
    return cudaErrorInvalidValue;
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  ++waits;
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void* memory) {
  found->type = is_device(memory) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t) { return "invalid value"; }

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclInvalidArgument ? "invalid argument" : "remote error";
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* result) {
  *result = std::exchange(async_result, ncclSuccess);
  return ncclSuccess;
}
ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  *count = static_cast<int>(comm->shared->sends.size());
  return ncclSuccess;
}
ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  *rank = comm->rank;
  return ncclSuccess;
}
ncclResult_t ncclGroupStart() {
  sends.clear();
  receives.clear();
  in_group = nullptr;
  return ncclSuccess;
}
ncclResult_t ncclSend(const void* memory, std::size_t bytes, ncclDataType_t, int peer, ncclComm_t comm, cudaStream_t) {
  if (next_result != ncclSuccess)
    return std::exchange(next_result, ncclSuccess);
  if (!is_device(memory, bytes))
    return ncclInvalidArgument;
  in_group = comm;
  sends.push_back({peer, const_cast<void*>(memory), bytes});
  return ncclSuccess;
}
ncclResult_t ncclRecv(void* memory, std::size_t bytes, ncclDataType_t, int peer, ncclComm_t comm, cudaStream_t) {
  if (!is_device(memory, bytes))
    return ncclInvalidArgument;
  in_group = comm;
  receives.push_back({peer, memory, bytes});
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd();
ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t,
                           ncclComm_t comm, cudaStream_t);
ncclResult_t ncclAllGather(const void* from, void* to, std::size_t bytes, ncclDataType_t, ncclComm_t comm,
                           cudaStream_t);
}

namespace nccl_on_threads {

/// The communicator whose threads meet in groups: a group without messages has to meet, too.
inline thread_local ncclComm_t own = nullptr;

template <class T> void sum(const group& all, void* to, std::size_t count) {
  std::vector<T> total(count);
  for (const void* operand : all.operand)
    for (std::size_t i = 0; i < count; ++i)
      total[i] = static_cast<T>(total[i] + static_cast<const T*>(operand)[i]);
  const_cast<group&>(all).meeting.arrive_and_wait(); // all have read
  std::copy(total.begin(), total.end(), static_cast<T*>(to));
}

/// f(rank, communicator) on a thread for each rank.
template <class F> void run(std::size_t ranks, const F& f) {
  group shared(ranks);
  std::vector<ncclComm> comms;
  for (std::size_t r = 0; r < ranks; ++r)
    comms.push_back({&shared, static_cast<int>(r)});
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < ranks; ++r)
    threads.emplace_back([&, r] {
      own = &comms[r];
      f(r, &comms[r]);
    });
  for (std::thread& t : threads)
    t.join();
}

} // namespace nccl_on_threads

extern "C" {
ncclResult_t ncclGroupEnd() {
  group& all = *own->shared;
  all.sends[static_cast<std::size_t>(own->rank)] = sends;
  all.meeting.arrive_and_wait();
  ncclResult_t result = ncclSuccess;
  for (const message& wanted : receives)
    for (const message& sent : all.sends[static_cast<std::size_t>(wanted.peer)])
      if (sent.peer == own->rank) {
        if (sent.bytes != wanted.bytes)
          result = ncclInvalidArgument;
        else
          std::memcpy(wanted.memory, sent.memory, sent.bytes);
      }
  all.meeting.arrive_and_wait();
  return result;
}
ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t,
                           ncclComm_t comm, cudaStream_t) {
  if (!is_device(from) || !is_device(to))
    return ncclInvalidArgument;
  group& all = *comm->shared;
  all.operand[static_cast<std::size_t>(comm->rank)] = from;
  all.meeting.arrive_and_wait();
  if (type == ncclFloat32)
    nccl_on_threads::sum<float>(all, to, count);
  else if (type == ncclFloat64)
    nccl_on_threads::sum<double>(all, to, count);
  else if (type == ncclUint64)
    nccl_on_threads::sum<std::uint64_t>(all, to, count);
  else if (type == ncclInt32)
    nccl_on_threads::sum<std::int32_t>(all, to, count);
  else
    return ncclInvalidArgument;
  return ncclSuccess;
}
ncclResult_t ncclAllGather(const void* from, void* to, std::size_t bytes, ncclDataType_t, ncclComm_t comm,
                           cudaStream_t) {
  if (!is_device(from, bytes) || !is_device(to, bytes))
    return ncclInvalidArgument;
  group& all = *comm->shared;
  all.operand[static_cast<std::size_t>(comm->rank)] = from;
  all.meeting.arrive_and_wait();
  for (std::size_t r = 0; r < all.operand.size(); ++r)
    std::memcpy(static_cast<std::byte*>(to) + r * bytes, all.operand[r], bytes);
  all.meeting.arrive_and_wait();
  return ncclSuccess;
}
}
