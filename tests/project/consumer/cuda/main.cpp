// SPDX-License-Identifier: MIT
// Host code beside one file of kernels. Without a GPU, that it is linked is all that is tested.
#include "kernel.hpp"

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0)
    return 0;
  const hmoe::context gpu{hmoe::backends::cuda{}, hmoe::executors::cuda_stream{}};
  hmoe::matrix<float> host(2, 3);
  host(1, 2) = 4;
  const hmoe::backends::device_matrix<float> from(gpu.executor(), host.view());
  hmoe::backends::device_matrix<float> to(gpu.executor(), host.view());
  launch_add(gpu, from, to);
  to.read(gpu.executor(), host.view());
  gpu.synchronize();
  return host(1, 2) == 8 ? 0 : 1;
}
