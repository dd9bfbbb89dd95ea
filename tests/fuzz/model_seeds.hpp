// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fuzz {

/// A config.json of each family and each kind of layer, with the values that io::models asks for, and behind a zero
/// byte what fuzz::model makes of the tensors: the layer, the names.
inline std::vector<std::string> model_seeds() {
  struct seed {
    std::string_view config;
    char layer, names;
  };
  constexpr seed all[] = {
      {R"({"model_type":"mixtral","num_hidden_layers":2,"hidden_act":"silu","hidden_size":3,"num_local_experts":2,
"intermediate_size":2,"num_experts_per_tok":2})",
       1, 0},
      {R"({"model_type":"minimax","num_hidden_layers":2,"hidden_size":3,"num_experts":2,"intermediate_size":2,
"num_experts_per_tok":1})",
       0, 1},
      {R"({"model_type":"minimax_m2","num_hidden_layers":2,"hidden_size":3,"num_local_experts":2,"intermediate_size":2,
"num_experts_per_tok":1})",
       0, 0},
      {R"({"model_type":"phimoe","num_hidden_layers":2,"hidden_size":3,"num_local_experts":2,"intermediate_size":2,
"num_experts_per_tok":2,"router_jitter_noise":0.01})",
       0, 1},
      {R"({"model_type":"qwen2_moe","num_hidden_layers":2,"mlp_only_layers":[0],"decoder_sparse_step":1,"hidden_act":
"silu","hidden_size":3,"num_experts":2,"moe_intermediate_size":2,"shared_expert_intermediate_size":4,
"num_experts_per_tok":2,"norm_topk_prob":true})",
       1, 0},
      {R"({"model_type":"qwen3_moe","num_hidden_layers":2,"hidden_size":3,"num_experts":2,"moe_intermediate_size":2,
"num_experts_per_tok":2,"norm_topk_prob":true})",
       1, 1},
      {R"({"model_type":"qwen3_next","num_hidden_layers":2,"hidden_size":3,"num_experts":2,"moe_intermediate_size":2,
"shared_expert_intermediate_size":2,"num_experts_per_tok":2})",
       1, 0},
      {R"({"model_type":"olmoe","num_hidden_layers":2,"hidden_size":3,"num_experts":2,"intermediate_size":2,
"num_experts_per_tok":2,"norm_topk_prob":false})",
       1, 0},
      {R"({"model_type":"deepseek_v2","num_hidden_layers":2,"first_k_dense_replace":1,"moe_layer_freq":1,"hidden_size":3,
"n_routed_experts":2,"moe_intermediate_size":2,"n_shared_experts":2,"topk_method":"group_limited_greedy","n_group":2,
"topk_group":1,"num_experts_per_tok":1,"routed_scaling_factor":1.5})",
       1, 0},
      {R"({"model_type":"deepseek_v3","num_hidden_layers":2,"hidden_size":3,"n_routed_experts":4,
"moe_intermediate_size":2,"n_shared_experts":1,"n_group":2,"topk_group":1,"num_experts_per_tok":2,
"routed_scaling_factor":2.5,"norm_topk_prob":true})",
       1, 0},
      {R"({"model_type":"glm4_moe","num_hidden_layers":2,"hidden_size":3,"num_local_experts":2,
"moe_intermediate_size":2,"num_experts_per_tok":2})",
       1, 1},
      {R"({"model_type":"deepseek_v4","num_hidden_layers":2,"mlp_layer_types":["hash_moe","moe"],"hidden_size":3,
"n_routed_experts":2,"moe_intermediate_size":2,"num_experts_per_tok":1,"vocab_size":5,"scoring_func":"sqrtsoftplus",
"routed_scaling_factor":1.5,"swiglu_limit":1.5})",
       0, 0},
      {R"({"model_type":"deepseek_v4","num_hidden_layers":4,"num_hash_layers":1,"hidden_size":3,"n_routed_experts":2,
"intermediate_size":2,"num_experts_per_tok":1,"routed_scaling_factor":1.5,"swiglu_limit":7})",
       1, 1},
      {R"({"model_type":"gpt_oss","num_hidden_layers":2,"hidden_size":3,"num_local_experts":2,"intermediate_size":2,
"num_experts_per_tok":2,"swiglu_limit":7.0,"swiglu_alpha":1.702})",
       0, 0},
      {R"({"model_type":"gpt_oss","num_hidden_layers":2,"hidden_size":32,"num_local_experts":2,"intermediate_size":32,
"experts_per_token":2})",
       0, 1},
      {R"({"model_type":"llama4","text_config":{"model_type":"llama4_text","num_hidden_layers":2,"moe_layers":[1],
"hidden_size":3,"num_local_experts":2,"intermediate_size":2,"num_experts_per_tok":1}})",
       1, 0},
      {R"({"model_type":"llama4_text","num_hidden_layers":2,"interleave_moe_layer_step":2,"hidden_size":3,
"num_local_experts":2,"intermediate_size":2,"num_experts_per_tok":1})",
       1, 0},
      {R"({"model_type":"switch_transformers","num_layers":2,"num_decoder_layers":2,"encoder_sparse_step":2,
"num_sparse_decoder_layers":1,"dense_act_fn":"relu","d_model":3,"num_experts":2,"d_ff":2,"router_bias":false})",
       1, 0},
      {R"({"model_type":"granitemoe","num_hidden_layers":2,"hidden_size":3,"num_local_experts":2,"intermediate_size":2,
"num_experts_per_tok":2})",
       1, 0},
      {R"({"model_type":"ernie4_5_moe","num_hidden_layers":2,"moe_layer_interval":1,"moe_layer_start_index":1,
"moe_layer_end_index":-1,"use_bias":false,"hidden_size":3,"moe_num_experts":2,"moe_intermediate_size":2,
"moe_num_shared_experts":1,"moe_k":2,"moe_norm_min":1e-12})",
       1, 0},
      {R"({"model_type":"hunyuan_v1_moe","num_hidden_layers":2,"hidden_size":3,"num_experts":[2,2],
"intermediate_size":2,"moe_topk":[1,2]})",
       1, 0},
      {R"({"model_type":"dbrx","n_layers":2,"d_model":3,"ffn_config":{"ffn_act_fn":{"name":"silu"},"moe_num_experts":2,
"ffn_hidden_size":2,"moe_top_k":2,"moe_normalize_expert_weights":1}})",
       1, 0},
      {R"({"model_type":"jetmoe","num_hidden_layers":2,"activation_function":"silu","hidden_size":3,
"num_local_experts":2,"intermediate_size":2,"num_experts_per_tok":2})",
       1, 0},
      {R"({"model_type":"longcat_flash","num_layers":2,"hidden_size":3,"n_routed_experts":2,"expert_ffn_hidden_size":2,
"zero_expert_num":1,"moe_topk":2,"routed_scaling_factor":6.0})",
       1, 1},
      {R"({"model_type":"gemma4_text","num_hidden_layers":2,"enable_moe_block":true,"hidden_activation":
"gelu_pytorch_tanh","hidden_size":3,"num_experts":2,"moe_intermediate_size":2,"top_k_experts":2,"rms_norm_eps":1e-6})",
       1, 0},
      {R"({"model_type":"nemotron_h","layers_block_type":["mamba","moe"],"mlp_hidden_act":"relu2","mlp_bias":false,
"hidden_size":3,"n_routed_experts":2,"moe_intermediate_size":2,"moe_shared_expert_intermediate_size":3,"n_group":1,
"topk_group":1,"num_experts_per_tok":2,"routed_scaling_factor":2.5})",
       1, 0},
      {R"({"model_type":"nemotron_h","hybrid_override_pattern":"ME","hidden_size":3,"n_routed_experts":2,
"moe_intermediate_size":2,"moe_latent_size":2,"num_experts_per_tok":2})",
       1, 1},
  };
  std::vector<std::string> result;
  for (const seed& one : all)
    result.push_back(std::string(one.config) + '\0' + one.layer + one.names);
  return result;
}

} // namespace fuzz
