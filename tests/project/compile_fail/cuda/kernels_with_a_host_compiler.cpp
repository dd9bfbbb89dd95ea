// SPDX-License-Identifier: MIT
// expect: hmoe/backends/cuda/layer.cuh is for nvcc
#ifdef HMOE_MUST_COMPILE
#include <hmoe/backends/cuda/layer.hpp>
#else
#include <hmoe/backends/cuda/layer.cuh>
#endif
