// SPDX-License-Identifier: MIT
// One of each kernel, for what compilers say about them. Nothing here runs.
#include <hmoe/backends/cuda/experts_pass.cuh>
#include <hmoe/backends/cuda/layer.cuh>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

using glu = experts::glu_bank<float, experts::silu>;
using float_layer =
    moe_layer<expert_set<glu, experts::constant_bank<float>, experts::identity_bank<float>, experts::zero_bank<float>>,
              routing::presets::qwen2_moe<float>>;
using bfloat16_layer =
    moe_layer<expert_set<glu, experts::mlp_bank<float, experts::gelu>>, routing::presets::deepseek_v3<float>>;
using half_layer = moe_layer<expert_set<glu>, routing::top_p_router<float>>;
using quantized_layer = moe_layer<expert_set<glu>, routing::presets::llama4<float>>;
using all_losses = objective<losses::parameter_penalty, losses::load_balance, losses::compute_cost, losses::importance,
                             losses::router_entropy, losses::z>;

template struct backends::cuda_kernels<float_layer>;
template struct backends::cuda_kernels<bfloat16_layer, bfloat16>;
template struct backends::cuda_kernels<half_layer, hmoe::half>;
template struct backends::cuda_kernels<quantized_layer, bfloat16, q8_block>;
template struct backends::cuda_kernels<quantized_layer, bfloat16, q4_block>;
template struct backends::cuda_kernels<quantized_layer, bfloat16, q4_offset_block>;
template struct backends::cuda_kernels<quantized_layer, bfloat16, mxfp4_block>;
template struct backends::cuda_objective_kernels<float_layer, all_losses>;
template class backends::cuda_experts<2, float, experts::gated<experts::silu>>;
