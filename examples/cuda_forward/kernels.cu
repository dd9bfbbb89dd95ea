// SPDX-License-Identifier: MIT
// All that nvcc sees of this program.
#include <hmoe/backends/cuda/layer.cuh>

#include "model.hpp"

template struct hmoe::backends::cuda_kernels<layer_type, hmoe::bfloat16>;
template struct hmoe::backends::cuda_kernels<layer_type, hmoe::bfloat16, hmoe::q8_block>;
template struct hmoe::backends::cuda_objective_kernels<layer_type, objective_type, hmoe::bfloat16>;
