// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <hmoe/backends/cuda.hpp>
#include <hmoe/core/matrix.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace hmoe;

// Not in an unnamed namespace: the names of kernels differ from compilation to compilation there.
__global__ void add_one(matrix_view<float, device_space> m) {
  for (std::size_t i = threadIdx.x; i < m.size(); i += blockDim.x)
    m.data()[i] += 1;
}

namespace {

TEST_CASE("A context on the device reads as one on the host") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  static_assert(std::same_as<decltype(context{backends::cuda{}}), backends::cuda_context>);
  CHECK(gpu.compute_capability() >= 80);
  CHECK(gpu.multiprocessors() >= 1);
  CHECK(gpu.workspace().capacity() == 0);
  gpu.synchronize();
}

TEST_CASE("Matrices go to the device and come back [race]") {
  const context gpu{backends::cuda{}, executors::cuda_stream{}};
  matrix<float> host(5, 7);
  for (std::size_t i = 0; i < host.size(); ++i)
    host.data()[i] = static_cast<float>(i);
  backends::device_matrix<float> device(gpu.executor(), host.view());
  add_one<<<1, 32, 0, gpu.stream()>>>(device);
  backends::cuda_detail::require_cuda(cudaGetLastError(), "add_one");
  matrix<float> back(5, 7);
  device.read(gpu.executor(), back.view());
  gpu.synchronize();
  for (std::size_t i = 0; i < host.size(); ++i)
    CHECK(back.data()[i] == host.data()[i] + 1);

  // Views with a stride, both ways.
  backends::device_matrix<float> part(gpu.executor(), std::as_const(host).view().column_block(2, 3));
  part.read(gpu.executor(), back.view().column_block(1, 3));
  gpu.synchronize();
  for (std::size_t r = 0; r < 5; ++r)
    for (std::size_t c = 0; c < 3; ++c)
      CHECK(back(r, c + 1) == host(r, c + 2));
  CHECK_THROWS_WITH_AS(part.read(gpu.executor(), back.view()), "hmoe: copying a matrix of 5 x 3 to one of 5 x 7",
                       error);
}

TEST_CASE("Arrays grow only") {
  const executors::cuda_stream stream;
  backends::device_buffer<int> values(10);
  const int* const first = values.data();
  values.resize_for_overwrite(4);
  CHECK(values.data() == first);
  values.assign(stream, std::vector<int>{1, 2, 3});
  CHECK(values.size() == 3);
  CHECK(values.capacity() == 10);
  std::vector<int> back(3);
  values.read(stream, back);
  values.set_zero(stream);
  stream.synchronize();
  CHECK(back == std::vector<int>{1, 2, 3});
  std::vector<int> too_many(4);
  CHECK_THROWS_WITH_AS(values.read(stream, too_many), "hmoe: reading 4 values of a device array of 3", error);
}

TEST_CASE("A workspace allocates when it has to, as it was told to") {
  const executors::cuda_stream stream;
  backends::device_workspace fixed(1000);
  CHECK(fixed.block_for(1000, stream) != nullptr);
  CHECK_THROWS_WITH_AS((void)fixed.block_for(1001, stream),
                       "hmoe: the pass needs 1001 bytes of device workspace, reserved are 1000: reserve what "
                       "workspace_bytes(tokens) tells",
                       error);
  for (const auto growth : {backends::workspace_growth::device, backends::workspace_growth::stream_ordered}) {
    backends::device_workspace growing(growth);
    const auto* const block = growing.block_for(100, stream);
    CHECK(growing.capacity() == 100);
    CHECK(growing.block_for(60, stream) == block);
    CHECK(growing.block_for(200, stream) != nullptr);
    CHECK(growing.capacity() == 200);
    growing.reserve(300);
    CHECK(growing.capacity() == 300);
  }
}

TEST_CASE("An error of CUDA is an hmoe::error with its words") {
  std::string text;
  try {
    backends::cuda_detail::require_cuda(cudaErrorMemoryAllocation, "allocating ", 12, " bytes");
  } catch (const error& e) {
    text = e.what();
  }
  CHECK(text.starts_with("hmoe: CUDA: allocating 12 bytes: "));
}

} // namespace
