# SPDX-License-Identifier: MIT
"""AMD's zentorch: one call for the whole layer. It knows one width, so narrower experts are padded.

Weights stay as they are: it packs them itself when it first meets them. With int8 weights there is a scale for each row
of a weight matrix and one for each token, with int4 weights one for 32 inputs; tokens are bfloat16 then.
"""

import torch
import zentorch

from peers.problem import Refused

from .torch_moe import TorchLayer, tensor

GROUP = 32  # weights of int4 that share a scale, as in the other layers


def by_row(matrix):
    """(int8, a scale for each row) of [… × rows × inputs]."""
    scales = matrix.abs().amax(-1, keepdim=True) / 127
    return (matrix / scales.clamp(min=1e-30)).round().to(torch.int8), scales.squeeze(-1).to(torch.bfloat16)


def by_group(matrix):
    """(four bits of [rows × inputs] as zentorch packs them, scales [groups × rows])."""
    rows, inputs = matrix.shape
    groups = matrix.view(rows, inputs // GROUP, GROUP)
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scales = (largest / -8).to(torch.bfloat16)
    whole = (groups / torch.where(scales == 0, 1, scales).float()).round().clamp(-8, 7).to(torch.int8)
    packed = torch.ops.zentorch.zentorch_woq_repack_weight(whole.view(rows, inputs).contiguous())
    return packed, scales.squeeze(-1).t().contiguous()


class Layer(TorchLayer):
    def __init__(self, problem, form, threads):
        super().__init__(problem, form, threads)
        if form.startswith("q4"):
            if problem.d_model % GROUP:
                raise Refused(f"{GROUP} inputs share a scale, and the layer's inputs are no multiple of that")
            problem.round_up(GROUP)
        self.version = f"zentorch {zentorch.__version__}, {self.version}"
        self.bytes_per_weight = {"f32": 4, "bf16": 2, "q8": 1, "q4": 0.5 + 2 / GROUP}[form.split("_")[0]]
        self.copies = problem.copies(problem.weights * self.bytes_per_weight)
        one = self.made(form)
        self.layers = [one] + [tuple(None if m is None else m.clone() for m in one) for _ in range(self.copies - 1)]

    def made(self, form):
        """(gate and up, down, their scales)"""
        if form in ("f32", "bf16"):
            return *self.stacked(), None, None
        quantised = by_row if form.startswith("q8") else by_group
        parts = []  # (codes, scales) of gate and up, and of down
        for number in range(self.problem.experts):
            gate, up, down = map(tensor, self.problem.padded(number))
            parts.append((*quantised(torch.cat((gate, up))), *quantised(down.contiguous())))
        into, into_scales, out, out_scales = map(torch.stack, zip(*parts))
        return into, out, into_scales, out_scales

    def run(self, copy, loaded):
        into, out, into_scales, out_scales = self.layers[copy]
        torch.ops.zentorch.zentorch_fused_moe(
            *(loaded["y"], loaded["x"], into, out, None, None, loaded["weights"], loaded["ids"], False, "silu"),
            *(into_scales, out_scales),
        )


def make(subject, problem, form, threads):
    return Layer(problem, form, threads)
