#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes tests/golden/models/: for each family of models a small random checkpoint of released Hugging Face transformers,
and what one of its MoE blocks makes of a batch. scripts/golden installs what this needs and calls it.

usage: generate.py [FAMILY...]

Each folder holds config.json and model.safetensors as save_pretrained writes them, of the tensors those of the block only;
gradients.safetensors, the gradients of the block's parameters under the names that they have in memory (buffers, which
have none, are zeros); and io.safetensors: x, y, dy, dx [T x d], ids [T x k] ascending, weights [T x k], with the versions
and the number of the layer in its metadata.
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


def run(block, router, x, outputs_of):
    seen = []
    hook = block.get_submodule(router).register_forward_hook(lambda module, inputs, output: seen.append(output))
    y = block(x)
    hook.remove()
    y = y[0] if isinstance(y, tuple) else y
    ids, weights = outputs_of(seen[0], block)
    ids, order = ids.reshape(-1, ids.shape[-1]).sort(dim=1)
    return y, ids, weights.reshape(ids.shape).gather(1, order)


def is_stable(block, router, x, outputs_of):
    """Whether nothing changes in the choice when x does a little: no token stands at a tie."""
    with torch.no_grad():
        ids = run(block, router, x, outputs_of)[1]
        return all(torch.equal(ids, run(block, router, x * (1 + sign * 1e-3), outputs_of)[1]) for sign in (-1, 1))


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
    tensors.update({name: zeros(tensor) for name, tensor in model.named_buffers()})
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

    x = torch.randn(1, TOKENS, d, generator=generator)
    while not is_stable(block, router, x, outputs_of):
        x = torch.randn(1, TOKENS, d, generator=generator)
    x.requires_grad_()
    y, ids, weights = run(block, router, x, outputs_of)
    dy = torch.randn(y.shape, generator=generator)
    (y * dy).sum().backward()

    gradients = block_tensors(model, path)
    place = path.rpartition(".")[0] + "."  # on the hub some blocks are called otherwise
    others = ("layer_norm.", "self_attn.", "input_layernorm.", "post_attention_layernorm.")
    folder = FOLDER / family
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as directory:
        (model.bfloat16() if values.get("dtype") == "bfloat16" else model).save_pretrained(directory)
        with safetensors.safe_open(Path(directory) / "model.safetensors", "pt") as file:
            names = [name for name in file.keys() if name.startswith(place) and f"{name}_blocks" not in blocks
                     and not name.removeprefix(place).startswith(others)]
            stored = {name: file.get_tensor(name) for name in names} | blocks
        shutil.copy(Path(directory) / "config.json", folder)
    safetensors.torch.save_file(stored, folder / "model.safetensors", {"format": "pt"})
    safetensors.torch.save_file(gradients, folder / "gradients.safetensors")
    flat = {name: tensor.detach().reshape(TOKENS, -1).float().contiguous()
            for name, tensor in {"x": x, "y": y, "dy": dy, "dx": x.grad, "weights": weights}.items()}
    flat["ids"] = ids.to(torch.int32).contiguous()
    versions = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
    safetensors.torch.save_file(flat, folder / "io.safetensors", {"versions": versions, "layer": str(OUR_LAYER.get(family, LAYER))})
    print(f"{family}: {sum(file.stat().st_size for file in folder.iterdir())} bytes,", json.dumps(sorted(stored)[:2]))


def main():
    for seed, family in enumerate(CASES, start=1):
        if not sys.argv[1:] or family in sys.argv[1:]:
            make(family, seed)


if __name__ == "__main__":
    main()
