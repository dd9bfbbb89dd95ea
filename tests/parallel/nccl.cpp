// SPDX-License-Identifier: MIT
// With NCCL's functions on threads; where HMOE_NCCL_DEVICE is defined, with NCCL itself on one GPU, if there is one.
// See CMakeLists.txt beside it.
#include <hmoe/parallel/nccl.hpp>
#include <hmoe/testing/communicator_laws.hpp>

#include "support/error_of.hpp"

#include <cstddef>
#include <string>
#include <vector>

#if defined(HMOE_NCCL_DEVICE)

#include <cstdio>

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("skipped: there is no GPU");
    return 0;
  }
  ncclUniqueId id;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  hmoe::communicators::detail::check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
  hmoe::communicators::detail::check_nccl(ncclCommInitRank(&comm, 1, id, 0), "ncclCommInitRank");
  hmoe::communicators::detail::check_cuda(cudaStreamCreate(&stream), "cudaStreamCreate");
  const std::string found = hmoe::testing::check_communicator(hmoe::communicators::nccl(comm, stream)).text();
  std::puts(found.empty() ? "one rank of NCCL keeps the laws of communicators" : found.c_str());
  cudaStreamDestroy(stream);
  ncclCommDestroy(comm);
  return found.empty() ? 0 : 1;
}

#else

#include "parallel/nccl_on_threads.hpp"

#include <doctest/doctest.h>

namespace communicators = hmoe::communicators;

TEST_CASE("NCCL keeps the laws of communicators") {
  for (const std::size_t ranks : {1U, 2U, 3U, 5U}) {
    std::vector<std::string> found(ranks);
    nccl_on_threads::run(ranks, [&](std::size_t r, ncclComm_t comm) {
      found[r] = hmoe::testing::check_communicator(communicators::nccl(comm, nullptr)).text();
    });
    for (const std::string& text : found)
      CHECK(text == "");
    CHECK(nccl_on_threads::device().empty()); // memory in place of the host's
  }
}

TEST_CASE("device memory is used where it is, and the host does not wait for it") {
  std::vector<std::size_t> waited(2);
  nccl_on_threads::run(2, [&](std::size_t r, ncclComm_t comm) {
    const communicators::nccl ranks(comm, nullptr);
    void* memory = nullptr;
    cudaMallocAsync(&memory, 8 * sizeof(float), nullptr);
    const std::span<float> values(static_cast<float*>(memory), 8);
    for (std::size_t i = 0; i < 8; ++i)
      values[i] = static_cast<float>(10 * r + i);
    const std::vector<std::size_t> rows{1, 1};
    const std::size_t before = nccl_on_threads::waits;
    ranks.all_to_all(values.first(4), rows, values.subspan(4), rows, 2);
    CHECK(values[4] == static_cast<float>(2 * r)); // of rank 0
    CHECK(values[6] == static_cast<float>(10 + 2 * r));
    ranks.all_reduce(values.first(2));
    CHECK(values[1] == 12.0F);
    waited[r] = nccl_on_threads::waits - before;
    cudaFreeAsync(memory, nullptr);
  });
  CHECK(waited == std::vector<std::size_t>{0, 0});
}

TEST_CASE("what NCCL says is an error, at once or later, and leaves no memory behind") {
  nccl_on_threads::run(1, [](std::size_t, ncclComm_t comm) {
    const communicators::nccl ranks(comm, nullptr);
    std::vector<float> values(4), short_of(3);
    nccl_on_threads::async_result = ncclRemoteError;
    CHECK(support::error_of([&] { ranks.all_reduce(std::span(values)); }) ==
          "hmoe: communicators::nccl: an operation that had begun: remote error");
    CHECK(support::error_of([&] { ranks.all_to_all(values, std::span(short_of)); }) ==
          "hmoe: all_to_all of 4 values into 3 on 1 ranks: both must be the same multiple of the number of ranks");
    const std::vector<std::size_t> sent{4}, expected{3};
    CHECK(support::error_of([&] { ranks.all_to_all(values, sent, std::span(short_of), expected); }) ==
          "hmoe: all_to_all: rank 0 expects 3 rows of rank 0, which sends 4");
  });
  nccl_on_threads::run(2, [](std::size_t r, ncclComm_t comm) {
    const communicators::nccl ranks(comm, nullptr);
    std::vector<float> send(4), receive(4);
    nccl_on_threads::next_result = r == 0 ? ncclInvalidArgument : ncclSuccess;
    const std::string error = support::error_of([&] { ranks.all_to_all(send, std::span(receive)); });
    CHECK(error == (r == 0 ? "hmoe: communicators::nccl: ncclSend or ncclRecv: invalid argument" : "no error"));
  });
  CHECK(nccl_on_threads::device().empty());
}

#endif
