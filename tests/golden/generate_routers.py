#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes tests/golden/router_*.json: what the routers of released models choose, from the classes that load their
checkpoints in Hugging Face transformers. The files are part of the project; scripts/golden makes them anew."""

import importlib
import json
from pathlib import Path

import torch
import transformers

FOLDER = Path(__file__).resolve().parent
D_MODEL, EXPERTS, TOKENS = 6, 12, 10


def steps(*shape, scale=1.0, generator):
    """Random multiples of 1/16: exact in float32, and short to write."""
    return torch.round(torch.randn(*shape, generator=generator) * scale * 16) / 16


def class_of(model, name):
    return getattr(importlib.import_module(f"transformers.models.{model}.modeling_{model}"), name)


def config_of(model, name, **values):
    config = getattr(importlib.import_module(f"transformers.models.{model}.configuration_{model}"), name)()
    for key, value in values.items():  # set afterwards: only the router's sizes are real, and need not fit the rest
        setattr(config, key, value)
    return config


def sizes(k, **more):
    return {"hidden_size": D_MODEL, "num_experts": EXPERTS, "num_local_experts": EXPERTS, "n_routed_experts": EXPERTS,
            "num_experts_per_tok": k, "router_jitter_noise": 0.0, **more}


# A softmax over many experts is small, so a selection bias must be, or it alone would choose.
BIAS_SCALE = {"deepseek_v3": 0.25, "longcat_flash": 0.06}


def set_parameters(router, name, generator):
    tensors = {}
    for key, tensor in [*router.named_parameters(), *router.named_buffers()]:
        scale = BIAS_SCALE[name] if key == "e_score_correction_bias" else 1.0
        tensor.data.copy_(steps(*tensor.shape, scale=scale, generator=generator))
        tensors[key] = tensor.detach()
    return tensors


def top_k_router(model, config_class, router_class, k, **options):
    """A module whose forward returns (logits, weights, ids)."""
    router = class_of(model, router_class)(config_of(model, config_class, **sizes(k, **options)))

    def run(x):
        _, weights, ids = router(x)
        return ids, weights

    return router, run


def llama4(k):
    router = class_of("llama4", "Llama4Router")(config_of("llama4", "Llama4TextConfig", **sizes(k)))

    def run(x):
        scores, logits = router(x)
        ids = torch.topk(logits, k, dim=1).indices
        return ids, scores.gather(1, ids)

    return router, run


def switch_transformer():
    config = config_of("switch_transformers", "SwitchTransformersConfig", hidden_size=D_MODEL, num_experts=EXPERTS,
                       expert_capacity=TOKENS, router_bias=False, router_jitter_noise=0.0, router_dtype="float32")
    router = class_of("switch_transformers", "SwitchTransformersTop1Router")(config).eval()

    def run(x):
        chosen, probability, _ = router(x.unsqueeze(0))
        return chosen[0].argmax(dim=-1, keepdim=True), probability[0]

    return router, run


GROUPS = {"n_group": 4, "topk_group": 2}
CASES = {
    "mixtral": (lambda: top_k_router("mixtral", "MixtralConfig", "MixtralTopKRouter", 2), {"k": 2}),
    "qwen2_moe": (lambda: top_k_router("qwen2_moe", "Qwen2MoeConfig", "Qwen2MoeTopKRouter", 4, norm_topk_prob=False),
                  {"k": 4}),
    "qwen3_moe": (lambda: top_k_router("qwen3_moe", "Qwen3MoeConfig", "Qwen3MoeTopKRouter", 3, norm_topk_prob=True),
                  {"k": 3}),
    "olmoe": (lambda: top_k_router("olmoe", "OlmoeConfig", "OlmoeTopKRouter", 4, norm_topk_prob=False), {"k": 4}),
    "deepseek_v2": (lambda: top_k_router("deepseek_v2", "DeepseekV2Config", "DeepseekV2TopkRouter", 3, **GROUPS,
                                         topk_method="group_limited_greedy", routed_scaling_factor=16.0),
                    {"k": 3, "groups": 4, "kept": 2, "scale": 16.0}),
    "deepseek_v3": (lambda: top_k_router("deepseek_v3", "DeepseekV3Config", "DeepseekV3TopkRouter", 4, **GROUPS,
                                         norm_topk_prob=True, routed_scaling_factor=2.5),
                    {"k": 4, "groups": 4, "kept": 2, "scale": 2.5}),
    "gpt_oss": (lambda: top_k_router("gpt_oss", "GptOssConfig", "GptOssTopKRouter", 4), {"k": 4}),
    "llama4": (lambda: llama4(1), {"k": 1}),
    "switch_transformer": (switch_transformer, {"k": 1}),
    "longcat_flash": (lambda: top_k_router("longcat_flash", "LongcatFlashConfig", "LongcatFlashTopkRouter", 5,
                                           n_routed_experts=EXPERTS - 4, zero_expert_num=4, router_bias=False,
                                           routed_scaling_factor=6.0),
                      {"k": 5, "scale": 6.0}),
}


def is_stable(run, x):
    """Whether nothing changes in the choice when x does a little: no token stands at a tie."""
    ids = run(x.clone())[0].sort(dim=1).values
    return all(torch.equal(ids, run(x * (1 + sign * 1e-3))[0].sort(dim=1).values) for sign in (-1, 1))


def make(name, seed):
    build, settings = CASES[name]
    generator = torch.Generator().manual_seed(seed)
    router, run = build()
    with torch.no_grad():
        tensors = set_parameters(router, name, generator)
        x = steps(TOKENS, D_MODEL, generator=generator)
        while not is_stable(run, x):
            x = steps(TOKENS, D_MODEL, generator=generator)
        ids, weights = run(x.clone())
    ids, order = ids.sort(dim=1)
    return {
        "model": name,
        "source": f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}",
        "class": type(router).__name__,
        **settings,
        "parameters": {key: tensor.tolist() for key, tensor in tensors.items()},
        "x": x.tolist(),
        "ids": ids.tolist(),
        "weights": [[float(f"{w:.9g}") for w in row] for row in weights.float().gather(1, order).tolist()],
    }


def text_of(value, indent=""):
    """JSON with a row of numbers to a line."""
    if isinstance(value, dict):
        body = ",\n".join(f"{indent} {json.dumps(key)}: {text_of(item, indent + ' ')}" for key, item in value.items())
        return "{\n" + body + "\n" + indent + "}"
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[\n" + ",\n".join(indent + "  " + json.dumps(row) for row in value) + "]"
    return json.dumps(value)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(CASES, start=1):
        path = FOLDER / f"router_{name}.json"
        path.write_text(text_of(make(name, seed)) + "\n", encoding="utf-8")
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
