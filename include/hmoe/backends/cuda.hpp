// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

/// The CUDA backend as a host compiler sees it: contexts, device memory, layers on the device, and experts with the
/// choices of another router. Kernels come from one .cu file of the program, which includes
/// hmoe/backends/cuda/layer.cuh and instantiates its layers, or experts_pass.cuh for cuda_experts
/// (docs/backends/cuda.md).

#include <hmoe/backends/cuda/context.hpp>
#include <hmoe/backends/cuda/experts_pass.hpp>
#include <hmoe/backends/cuda/gradients.hpp>
#include <hmoe/backends/cuda/layer.hpp>
#include <hmoe/backends/cuda/losses.hpp>
#include <hmoe/backends/cuda/memory.hpp>
#include <hmoe/backends/cuda/optimizer.hpp>
#include <hmoe/backends/cuda/stream.hpp>
#include <hmoe/backends/cuda/tape.hpp>
#include <hmoe/backends/cuda/workspace.hpp>
#include <hmoe/core/macros_on.hpp>
