# SPDX-License-Identifier: MIT
"""Time of the experts of a layer by transformers' implementations and by hmoe: a table of ratios.

    python examples/pytorch/benchmarks/experts.py --shape olmoe --tokens 1 64 1024 --dtype float32 bfloat16

All ways of a cell run in turn in one process, so that a busy machine slows all of them down; the table has the quickest time
of each. Shapes are those of the models' experts, with fewer of them (--experts) where memory is short. hmoe's own kernels beside those of
other libraries, kt-kernel among them: scripts/bench peers.
"""

import argparse
import math
import sys
import time

import torch
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

import hmoe
import hmoe.transformers

#: d_model, width, experts, experts of a token
SHAPES = {
    "olmoe": (2048, 1024, 64, 8),
    "qwen3": (2048, 768, 128, 8),
    "deepseek-v2-lite": (2048, 1408, 64, 6),
    "gpt-oss": (2880, 2880, 32, 4),
    "mixtral": (4096, 14336, 8, 2),
}


class Config:
    """What the modules of experts read of a model's configuration."""

    def __init__(self, d, h, experts, choices):
        self.hidden_size, self.intermediate_size = d, h
        self.num_local_experts, self.num_experts_per_tok = experts, choices
        self.hidden_act, self._experts_implementation = "silu", "eager"
        self.swiglu_alpha, self.swiglu_limit = 1.702, 7.0


def build(shape, experts, width, dtype):
    d, h, most, choices = SHAPES[shape]
    config = Config(d, width or h, min(experts or most, most), choices)
    module = (GptOssExperts if shape == "gpt-oss" else MixtralExperts)(config).to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.02)
    return module, config


def ways_of(module, dtype, tokens, choices, compiled, training):
    def by(implementation, weights=None):
        def run(x, ids, shares):
            module.config._experts_implementation = implementation
            if weights is not None:
                module._hmoe_weights = weights
            return module(x, ids, shares)

        return run

    ways = {"eager": by("eager"), "grouped_mm": by("grouped_mm")}
    gathered = tokens * choices * sum(p[0].numel() for p in module.parameters()) * dtype.itemsize
    if gathered < 2**30:  # batched_mm copies the weights of every choice: it would take minutes
        ways["batched_mm"] = by("batched_mm")
    if compiled:
        grouped = torch.compile(by("grouped_mm"), dynamic=False)
        ways["compiled"] = grouped
    ways["hmoe"] = by("hmoe", "in_place")
    if not training:
        packed = "f32" if dtype == torch.float32 else "bf16"
        ways[f"hmoe {packed}"] = by("hmoe", packed)
    return ways


def measure(module, ways, x, ids, shares, seconds, training, clock):
    """The quickest time of each way, in seconds."""
    best = dict.fromkeys(ways, math.inf)

    def step(run):
        with torch.set_grad_enabled(training):
            y = run(x, ids, shares)
            if training:
                y.sum().backward()
                module.zero_grad(set_to_none=True)

    def keep_packed(name):
        # Changing the form would pack the weights anew in each turn.
        return name.startswith("hmoe ")

    in_turn = [name for name in ways if not keep_packed(name)]
    for group in (in_turn, [name for name in ways if keep_packed(name)]):
        if not group:
            continue
        for name in group:
            step(ways[name])
        end = time.perf_counter() + seconds * len(group)
        rounds = 0
        while time.perf_counter() < end or rounds < 3:
            rounds += 1
            for name in group:
                begin = clock()
                step(ways[name])
                best[name] = min(best[name], clock() - begin)
    hmoe.transformers.release(module)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["olmoe"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[1, 4, 16, 64, 256, 1024, 4096])
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--experts", type=int, help="that many at most")
    parser.add_argument("--width", type=int, help="in place of the model's")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each way (default: 1)")
    parser.add_argument("--compile", action="store_true", help="grouped_mm under torch.compile as well")
    parser.add_argument("--cpu-time", action="store_true", help="on one thread, and the CPU's time in place of the clock's: "
                        "for machines that others use as well")
    parser.add_argument("--training", action="store_true", help="forward and backward")
    options = parser.parse_args()

    clock = time.process_time if options.cpu_time else time.perf_counter
    if options.cpu_time:
        torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, hmoe {hmoe.__version__} with {hmoe.instructions()}; "
          f"{'forward and backward' if options.training else 'forward'}, ms{' of CPU time' if options.cpu_time else ''}")
    torch.manual_seed(0)
    head = None
    for shape in options.shape:
        for name in options.dtype:
            dtype = getattr(torch, name)
            module, config = build(shape, options.experts, options.width, dtype)
            module.requires_grad_(options.training)
            for tokens in options.tokens:
                x = torch.randn(tokens, config.hidden_size).to(dtype)
                ids = torch.stack([torch.randperm(config.num_local_experts)[: config.num_experts_per_tok]
                                   for _ in range(tokens)])
                shares = torch.rand(ids.shape).to(dtype)
                ways = ways_of(module, dtype, tokens, ids.shape[1], options.compile, options.training)
                best = measure(module, ways, x, ids, shares, options.seconds, options.training, clock)
                others = min(t for n, t in best.items() if not n.startswith("hmoe"))
                columns = ["eager", "batched_mm", "grouped_mm", *(["compiled"] if options.compile else []), "hmoe", "hmoe packed"]
                times = {n if not n.startswith("hmoe ") else "hmoe packed": t for n, t in best.items()}
                if head is None:
                    head = ["shape", "experts", "type", "tokens", *columns, "best other ÷ hmoe", "÷ packed"]
                    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
                cells = [f"{1e3 * times[c]:.2f}" if c in times else "" for c in columns]
                ratios = [f"{others / times[c]:.2f}" if c in times else "" for c in ("hmoe", "hmoe packed")]
                print("| " + " | ".join([shape, str(config.num_local_experts), name, str(tokens), *cells, *ratios]) + " |",
                      flush=True)


if __name__ == "__main__":
    sys.exit(main())
