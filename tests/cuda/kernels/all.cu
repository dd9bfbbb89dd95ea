// SPDX-License-Identifier: MIT
// One of each kernel, for what compilers say about them. Nothing here runs.
#include <hmoe/backends/cuda/layer.cuh>
#include <hmoe/hmoe.hpp>

using namespace hmoe;

using set = expert_set<experts::glu_bank<float, experts::silu>, experts::mlp_bank<float, experts::gelu>,
                       experts::constant_bank<float>, experts::identity_bank<float>, experts::zero_bank<float>>;
using top_k = moe_layer<set, routing::presets::qwen2_moe<float>>;
using top_p = moe_layer<set, routing::top_p_router<float>>;
using grouped = moe_layer<set, routing::presets::deepseek_v3<float>>;
using on_input = moe_layer<expert_set<experts::gpt_oss_glu_bank<float>, experts::low_rank_bank<float>>,
                           routing::presets::llama4<float>>;

template struct backends::cuda_kernels<top_k>;
template struct backends::cuda_kernels<top_k, bfloat16>;
template struct backends::cuda_kernels<top_p, half>;
template struct backends::cuda_kernels<grouped, bfloat16, q8_block>;
template struct backends::cuda_kernels<grouped, bfloat16, q4_block>;
template struct backends::cuda_kernels<grouped, bfloat16, mxfp4_block>;
template struct backends::cuda_kernels<on_input, bfloat16>;
template struct backends::cuda_objective_kernels<
    top_k, objective<losses::parameter_penalty, losses::load_balance, losses::router_entropy, losses::z,
                     losses::importance>>;
