#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes tests/golden/models/: for each family of models a small random checkpoint of released Hugging Face transformers,
and what one of its MoE blocks makes of a batch. scripts/golden installs what this needs and calls it.

usage: generate.py [FAMILY...]

Each folder holds config.json and model.safetensors as save_pretrained writes them, of the tensors those of the block only;
gradients.safetensors, the gradients of the block's parameters under the names that they have in memory (buffers, which
have none, are zeros); and io.safetensors: x, y, dy, dx [T x d], ids [T x k] ascending, weights [T x k], with the
number of the layer and the versions in its metadata.
"""

import importlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import transformers
from transformers.integrations import mxfp4

FOLDER = Path(__file__).resolve().parent / "models"
TOKENS, LAYER = 12, 1
# Widths differ from d_model and from one another, so that no matrix can be taken for another or for its transpose.
BASE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "vocab_size": 32, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
QWEN = {"intermediate_size": 24, "moe_intermediate_size": 12, "num_experts": 8, "num_experts_per_tok": 3}
DEEPSEEK = {"intermediate_size": 24, "moe_intermediate_size": 12, "n_routed_experts": 8, "num_experts_per_tok": 3,
            "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2}


NEMOTRON = {"layers_block_type": ["mamba", "moe"], "intermediate_size": 24, "moe_intermediate_size": 12,
            "moe_shared_expert_intermediate_size": 20, "n_routed_experts": 8, "num_experts_per_tok": 3, "n_group": 2,
            "topk_group": 1, "routed_scaling_factor": 2.5, "mamba_num_heads": 2, "mamba_head_dim": 8, "n_groups": 1,
            "ssm_state_size": 4}


def router_triple(output, _):
    """(logits, weights, ids)"""
    return output[2], output[1]


def router_of_llama4(output, block):
    """(scores, logits)"""
    ids = torch.topk(output[1], block.top_k, dim=1).indices
    return ids, output[0].gather(1, ids)


def router_of_switch(output, _):
    """(chosen as 0 and 1, the largest probability, logits)"""
    return output[0].argmax(dim=-1, keepdim=True), output[1]


def router_of_dbrx(output, block):
    """logits; the block makes weights of them"""
    weights, ids = block.route_tokens_to_experts(output)
    return ids, weights


def router_of_jetmoe(output, block):
    """(…, logits)"""
    values, ids = torch.topk(output[4], block.router.top_k, dim=1)
    return ids, torch.softmax(values, dim=1)


class Gemma4Experts(torch.nn.Module):
    """The part of a Gemma 4 layer that is an MoE layer of ours: its router reads another tensor than its experts."""

    def __init__(self, layer):
        super().__init__()
        self.router, self.experts = layer.router, layer.experts

    def forward(self, x, router_x):
        _, weights, ids = self.router(router_x.reshape(-1, router_x.shape[-1]))
        return self.experts(x.reshape(-1, x.shape[-1]), ids, weights).reshape(x.shape)


class LatentExperts(torch.nn.Module):
    """The same of a Nemotron-H layer with a latent size: what stands between its two projections."""

    def __init__(self, block):
        super().__init__()
        self.gate, self.experts = block.gate, block.experts

    def forward(self, x, router_x):
        _, weights, ids = self.gate(router_x)
        return self.experts(x.reshape(-1, x.shape[-1]), ids, weights).reshape(x.shape)


class HashedExperts(torch.nn.Module):
    """A block of DeepSeek-V4 whose experts hang on the tokens' vocabulary ids."""

    def __init__(self, block):
        super().__init__()
        table = block.gate.tid2eid
        generator = torch.Generator().manual_seed(7)
        for row in table:
            row.copy_(torch.randperm(block.gate.num_experts, generator=generator)[: len(row)])
        self.gate, self.block = block.gate, [block]
        self.token_ids = torch.randint(0, len(table), (1, TOKENS), generator=generator)

    def forward(self, x):
        return self.block[0](x, self.token_ids)


# Blocks that are parts of a module, with routers that read a tensor of their own.
PARTS = {"gemma4": Gemma4Experts, "nemotron_h_latent": LatentExperts}


# Family: module of transformers, class of the model, where its configuration is, the block and its router, values of the
# configuration, and how the router's output gives ids and weights.
CASES = {
    "mixtral": ("mixtral", "MixtralForCausalLM", "MixtralConfig", "model.layers.1.mlp", "gate",
                {**BASE, "intermediate_size": 12, "num_local_experts": 8, "num_experts_per_tok": 2}, router_triple),
    "qwen2_moe": ("qwen2_moe", "Qwen2MoeForCausalLM", "Qwen2MoeConfig", "model.layers.1.mlp", "gate",
                  {**BASE, **QWEN, "shared_expert_intermediate_size": 20, "norm_topk_prob": False,
                   "mlp_only_layers": [0]}, router_triple),
    "qwen3_moe": ("qwen3_moe", "Qwen3MoeForCausalLM", "Qwen3MoeConfig", "model.layers.1.mlp", "gate",
                  {**BASE, **QWEN, "norm_topk_prob": True, "decoder_sparse_step": 2}, router_triple),
    "olmoe": ("olmoe", "OlmoeForCausalLM", "OlmoeConfig", "model.layers.1.mlp", "gate",
              {**BASE, "intermediate_size": 12, "num_experts": 8, "num_experts_per_tok": 3, "norm_topk_prob": False},
              router_triple),
    "deepseek_v2": ("deepseek_v2", "DeepseekV2ForCausalLM", "DeepseekV2Config", "model.layers.1.mlp", "gate",
                    {**BASE, **LATENT, **DEEPSEEK, "head_dim": 4, "n_shared_experts": 2, "routed_scaling_factor": 1.5,
                     "topk_method": "group_limited_greedy"}, router_triple),
    "deepseek_v3": ("deepseek_v3", "DeepseekV3ForCausalLM", "DeepseekV3Config", "model.layers.1.mlp", "gate",
                    {**BASE, **LATENT, **DEEPSEEK, "head_dim": 4, "n_shared_experts": 1, "routed_scaling_factor": 2.5,
                     "norm_topk_prob": True}, router_triple),
    "gpt_oss": ("gpt_oss", "GptOssForCausalLM", "GptOssConfig", "model.layers.1.mlp", "router",
                {**BASE, "intermediate_size": 12, "num_local_experts": 8, "num_experts_per_tok": 3, "swiglu_limit": 1.5,
                 "dtype": "bfloat16"}, router_triple),
    "gpt_oss_mxfp4": ("gpt_oss", "GptOssForCausalLM", "GptOssConfig", "model.layers.1.mlp", "router",
                      {**BASE, "hidden_size": 32, "intermediate_size": 32, "num_local_experts": 4,
                       "num_experts_per_tok": 2}, router_triple),
    "llama4": ("llama4", "Llama4ForCausalLM", "Llama4TextConfig", "model.layers.1.feed_forward", "router",
               {**BASE, "intermediate_size": 12, "intermediate_size_mlp": 24, "num_local_experts": 8,
                "num_experts_per_tok": 2, "interleave_moe_layer_step": 2}, router_of_llama4),
    "switch_transformers": ("switch_transformers", "SwitchTransformersForConditionalGeneration",
                            "SwitchTransformersConfig", "decoder.block.1.layer.2.mlp", "router",
                            {"vocab_size": 32, "d_model": 16, "d_kv": 8, "d_ff": 12, "num_layers": 2, "num_heads": 2,
                             "num_decoder_layers": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1,
                             "num_experts": 8, "expert_capacity": 64}, router_of_switch),
    "granitemoe": ("granitemoe", "GraniteMoeForCausalLM", "GraniteMoeConfig", "model.layers.1.block_sparse_moe", "router",
                   {**BASE, "intermediate_size": 12, "num_local_experts": 8, "num_experts_per_tok": 3}, router_triple),
    "qwen3_next": ("qwen3_next", "Qwen3NextForCausalLM", "Qwen3NextConfig", "model.layers.1.mlp", "gate",
                   {**BASE, **QWEN, "shared_expert_intermediate_size": 20, "linear_num_key_heads": 1,
                    "linear_num_value_heads": 1, "linear_key_head_dim": 4, "linear_value_head_dim": 4}, router_triple),
    "glm4_moe": ("glm4_moe", "Glm4MoeForCausalLM", "Glm4MoeConfig", "model.layers.1.mlp", "gate",
                 {**BASE, **DEEPSEEK, "n_shared_experts": 1, "routed_scaling_factor": 2.5, "norm_topk_prob": True},
                 router_triple),
    "dots1": ("dots1", "Dots1ForCausalLM", "Dots1Config", "model.layers.1.mlp", "gate",
              {**BASE, **DEEPSEEK, "n_shared_experts": 2, "routed_scaling_factor": 2.5, "norm_topk_prob": False},
              router_triple),
    "minimax": ("minimax", "MiniMaxForCausalLM", "MiniMaxConfig", "model.layers.1.mlp", "gate",
                {**BASE, "intermediate_size": 12, "num_local_experts": 8, "num_experts_per_tok": 3}, router_triple),
    "minimax_m2": ("minimax_m2", "MiniMaxM2ForCausalLM", "MiniMaxM2Config", "model.layers.1.mlp", "gate",
                   {**BASE, "intermediate_size": 12, "num_local_experts": 8, "num_experts_per_tok": 3}, router_triple),
    "phimoe": ("phimoe", "PhimoeForCausalLM", "PhimoeConfig", "model.layers.1.mlp", "router",
               {**BASE, "intermediate_size": 12, "num_local_experts": 8, "num_experts_per_tok": 2}, router_triple),
    "ernie4_5_moe": ("ernie4_5_moe", "Ernie4_5_MoeForCausalLM", "Ernie4_5_MoeConfig", "model.layers.1.mlp", "gate",
                     {**BASE, "intermediate_size": 24, "moe_intermediate_size": 12, "moe_num_experts": 8, "moe_k": 3,
                      "moe_num_shared_experts": 2}, router_triple),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", "HunYuanMoEV1ForCausalLM", "HunYuanMoEV1Config", "model.layers.1.mlp", "gate",
                       {**BASE, "intermediate_size": 12, "num_experts": 8, "moe_topk": [2, 3]}, router_triple),
    "dbrx": ("dbrx", "DbrxForCausalLM", "DbrxConfig", "transformer.blocks.1.ffn", "router",
             {"d_model": 16, "n_heads": 2, "n_layers": 2, "vocab_size": 32, "max_seq_len": 32,
              "attn_config": {"kv_n_heads": 1, "rope_theta": 10000.0},
              "ffn_config": {"ffn_hidden_size": 12, "moe_num_experts": 8, "moe_top_k": 3,
                             "moe_normalize_expert_weights": 2.0}}, router_of_dbrx),
    "jetmoe": ("jetmoe", "JetMoeForCausalLM", "JetMoeConfig", "model.layers.1.mlp", "router",
               {**BASE, "intermediate_size": 12, "num_local_experts": 8, "num_experts_per_tok": 2, "kv_channels": 8,
                "num_key_value_heads": 2}, router_of_jetmoe),
    "longcat_flash": ("longcat_flash", "LongcatFlashForCausalLM", "LongcatFlashConfig", "model.layers.1.mlp", "router",
                      {**{k: v for k, v in BASE.items() if k != "num_hidden_layers"}, **LATENT, "head_dim": 4,
                       "num_layers": 2, "ffn_hidden_size": 24, "expert_ffn_hidden_size": 12, "n_routed_experts": 6,
                       "zero_expert_num": 3, "moe_topk": 4, "routed_scaling_factor": 6.0}, router_triple),
    "gemma4": ("gemma4", "Gemma4ForCausalLM", "Gemma4TextConfig", "model.layers.1", "router",
               {**BASE, "intermediate_size": 24, "moe_intermediate_size": 12, "num_experts": 8, "top_k_experts": 3,
                "enable_moe_block": True, "hidden_size_per_layer_input": 0, "global_head_dim": 8}, router_triple),
    "nemotron_h": ("nemotron_h", "NemotronHForCausalLM", "NemotronHConfig", "model.layers.1.mixer", "gate",
                   {**BASE, **NEMOTRON}, router_triple),
    "nemotron_h_latent": ("nemotron_h", "NemotronHForCausalLM", "NemotronHConfig", "model.layers.1.mixer", "gate",
                          {**BASE, **NEMOTRON, "moe_latent_size": 10}, router_triple),
    "deepseek_v4": ("deepseek_v4", "DeepseekV4ForCausalLM", "DeepseekV4Config", "model.layers.1.mlp", "gate",
                    {**BASE, "num_key_value_heads": 1, "moe_intermediate_size": 12, "n_routed_experts": 8,
                     "num_experts_per_tok": 3, "routed_scaling_factor": 1.5, "swiglu_limit": 1.5, "q_lora_rank": 8,
                     "o_lora_rank": 4, "o_groups": 2, "index_n_heads": 1, "index_head_dim": 8,
                     "mlp_layer_types": ["hash_moe", "moe"]}, router_triple),
    "deepseek_v4_hash": ("deepseek_v4", "DeepseekV4ForCausalLM", "DeepseekV4Config", "model.layers.1.mlp", "gate",
                    {**BASE, "num_key_value_heads": 1, "moe_intermediate_size": 12, "n_routed_experts": 8,
                     "num_experts_per_tok": 3, "routed_scaling_factor": 1.5, "swiglu_limit": 1.5, "q_lora_rank": 8,
                     "o_lora_rank": 4, "o_groups": 2, "index_n_heads": 1, "index_head_dim": 8,
                     "mlp_layer_types": ["moe", "hash_moe"]}, router_triple),
}
# Which layer of ours the block is, where it is not LAYER: those of Switch's decoder follow those of its encoder.
OUR_LAYER = {"switch_transformers": 3}


def class_of(module, name):
    package = f"transformers.models.{module}"
    kind = "configuration" if name.endswith("Config") else "modeling"
    return getattr(importlib.import_module(f"{package}.{kind}_{module}"), name)


def randomize(model, generator):
    """Weights of a size that gives the router opinions and the experts curvature; biases of a choice, small."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point() or "rotary" in name or "inv_freq" in name:
            continue
        fan_in = tensor.shape[-1] if tensor.dim() > 1 else 16
        scale = 0.2 if "correction_bias" in name else 1.5 / fan_in**0.5
        tensor.data.copy_(torch.randn(tensor.shape, generator=generator) * scale)


def run(block, router, inputs, outputs_of):
    seen = []
    hook = block.get_submodule(router).register_forward_hook(lambda module, inputs, output: seen.append(output))
    y = block(*inputs)
    hook.remove()
    y = y[0] if isinstance(y, tuple) else y
    ids, weights = outputs_of(seen[0], block)
    ids, order = ids.reshape(-1, ids.shape[-1]).sort(dim=1)
    return y, ids, weights.reshape(ids.shape).gather(1, order)


def is_stable(block, router, inputs, outputs_of):
    """Whether nothing changes in the choice when x does a little: no token stands at a tie."""
    with torch.no_grad():
        ids = run(block, router, inputs, outputs_of)[1]
        return all(torch.equal(ids, run(block, router, [x * (1 + sign * 1e-3) for x in inputs], outputs_of)[1])
                   for sign in (-1, 1))


def set_mxfp4(experts, prefix, generator):
    """Gives the experts random weights that MXFP4 blocks hold; returns the blocks as released checkpoints have them."""
    blocks = {}
    for name in ("gate_up_proj", "down_proj"):
        weights = experts.get_parameter(name)
        count, reads, writes = weights.shape
        codes = torch.randint(0, 256, (count, writes, reads // 32, 16), generator=generator, dtype=torch.uint8)
        scales = torch.randint(123, 126, (count, writes, reads // 32), generator=generator, dtype=torch.uint8)
        weights.data = mxfp4.convert_moe_packed_tensors(codes, scales, dtype=torch.float32).contiguous()
        assert weights.shape == (count, reads, writes)
        blocks |= {f"{prefix}{name}_blocks": codes, f"{prefix}{name}_scales": scales}
    return blocks


def block_tensors(model, path):
    zeros = torch.zeros_like  # for experts that no token chose
    tensors = {name: zeros(tensor) if tensor.grad is None else tensor.grad for name, tensor in model.named_parameters()}
    # A table of ids stays what it is.
    tensors.update({name: zeros(tensor) if tensor.is_floating_point() else tensor for name, tensor in model.named_buffers()})
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items() if name.startswith(path + ".")}


def make(family, seed):
    module, model_class, config_class, path, router, values, outputs_of = CASES[family]
    generator = torch.Generator().manual_seed(seed)
    config = class_of(module, config_class)(**values)
    config._experts_implementation = "eager"
    model = class_of(module, model_class)(config).float().eval()
    with torch.no_grad():
        randomize(model, generator)
    block = model.get_submodule(path)
    if values.get("dtype") == "bfloat16":
        for tensor in model.parameters():
            tensor.data = tensor.data.bfloat16().float()
    blocks = set_mxfp4(block.experts, path + ".experts.", generator) if family.endswith("mxfp4") else {}
    d = values.get("hidden_size", values.get("d_model"))
    sizes = [d]
    if family.endswith("_hash"):
        block = HashedExperts(block)
    if family in PARTS:
        block = PARTS[family](block)
        sizes = [values.get("moe_latent_size", d), d]

    def draw():
        return [torch.randn(1, TOKENS, size, generator=generator) for size in sizes]

    inputs = draw()
    while not is_stable(block, router, inputs, outputs_of):
        inputs = draw()
    for x in inputs:
        x.requires_grad_()
    y, ids, weights = run(block, router, inputs, outputs_of)
    token_ids = getattr(block, "token_ids", None)
    dy = torch.randn(y.shape, generator=generator)
    (y * dy).sum().backward()

    gradients = block_tensors(model, path)
    # On the hub some blocks are called otherwise, and so is what stands before the layers.
    place = (path if family == "gemma4" else path.rpartition(".")[0]).removeprefix("model.") + "."
    others = ("layer_norm.", "self_attn.", "input_layernorm.", "post_attention_layernorm.", "attn", "ffn_norm", "hc_",
              "mlps.", "norm", "linear_attn.")
    folder = FOLDER / family
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as directory:
        (model.bfloat16() if values.get("dtype") == "bfloat16" else model).save_pretrained(directory)
        with safetensors.safe_open(Path(directory) / "model.safetensors", "pt") as file:
            rest = {name: name.partition(place)[2] for name in file.keys()}
            names = [name for name in rest if rest[name] and f"{name}_blocks" not in blocks and not rest[name].startswith(others)]
            if family == "gemma4":
                names = [name for name in names if rest[name].startswith(("experts.", "router."))]
            stored = {name: file.get_tensor(name) for name in names} | blocks
        shutil.copy(Path(directory) / "config.json", folder)
    safetensors.torch.save_file(stored, folder / "model.safetensors", {"format": "pt"})
    safetensors.torch.save_file(gradients, folder / "gradients.safetensors")
    flat = {name: tensor.detach().reshape(TOKENS, -1).float().contiguous()
            for name, tensor in {"x": inputs[0], "y": y, "dy": dy, "dx": inputs[0].grad, "weights": weights}.items()}
    if family in PARTS:
        flat |= {"router_x": inputs[1].detach().reshape(TOKENS, -1), "d_router_x": inputs[1].grad.reshape(TOKENS, -1)}
    if token_ids is not None:
        flat["token_ids"] = token_ids.to(torch.int32)
    flat["ids"] = ids.to(torch.int32).contiguous()
    versions = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
    # One text: several come in any order.
    safetensors.torch.save_file(flat, folder / "io.safetensors", {"layer": f"{OUR_LAYER.get(family, LAYER)} of {versions}"})
    print(f"{family}: {sum(file.stat().st_size for file in folder.iterdir())} bytes,", json.dumps(sorted(stored)[:2]))


def main():
    for seed, family in enumerate(CASES, start=1):
        if not sys.argv[1:] or family in sys.argv[1:]:
            make(family, seed)


if __name__ == "__main__":
    main()
