# SPDX-License-Identifier: MIT
"""PyTorch alone: a loop over experts as model code has it, and its grouped product, which knows only one width."""

import torch
from torch.nn import functional

from peers.problem import Refused

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class TorchLayer:
    """Tensors that every layer on PyTorch has: inputs in the layer's type, ids and weights as that layer wants them."""

    id_type = torch.int32

    def __init__(self, problem, form, threads):
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.problem, self.type = problem, TYPES.get(form, torch.bfloat16)
        self.version = f"torch {torch.__version__.split('+')[0]}"

    def load(self, entry):
        x = torch.from_numpy(entry.x).to(self.type)
        return {"x": x, "ids": torch.from_numpy(entry.ids).to(self.id_type), "weights": torch.from_numpy(entry.weights),
                "y": torch.zeros_like(x)}  # fmt: skip

    def feed(self, copy, loaded):
        pass

    def result(self, loaded):
        return loaded["y"].float().numpy()

    def stacked(self, into_type=None):
        """([N × 2h × d], [N × d × h]): gate above up, and down, padded to one width."""
        p, kind = self.problem, into_type or self.type
        into = torch.empty(p.experts, 2 * p.width, p.d_model, dtype=kind)
        out = torch.empty(p.experts, p.d_model, p.width, dtype=kind)
        for number in range(p.experts):
            gate, up, down = map(tensor, p.padded(number))
            into[number, : p.width], into[number, p.width :], out[number] = gate, up, down
        return into, out


def tensor(values):
    """A view of a file as a tensor: nothing writes to it."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(values)


class Eager(TorchLayer):
    id_type = torch.int64

    def __init__(self, problem, form, threads):
        super().__init__(problem, form, threads)
        self.bytes_per_weight = self.type.itemsize
        self.copies = problem.copies(int(problem.starts[-1]) * self.bytes_per_weight)
        experts = [tuple(tensor(m).to(self.type) for m in problem.expert(n)) for n in range(problem.experts)]
        experts = [(torch.cat((gate, up)), down.contiguous()) for gate, up, down in experts]
        self.layers = [experts] + [[tuple(m.clone() for m in e) for e in experts] for _ in range(self.copies - 1)]

    def run(self, copy, loaded):
        x, ids, weights = loaded["x"], loaded["ids"], loaded["weights"]
        y = torch.zeros_like(x)
        for number in ids.unique().tolist():
            tokens, place = torch.where(ids == number)
            into, down = self.layers[copy][number]
            gate, up = functional.linear(x[tokens], into).chunk(2, -1)
            rows = functional.linear(functional.silu(gate) * up, down)
            y.index_add_(0, tokens, rows * weights[tokens, place, None].to(rows.dtype))
        loaded["y"] = y


class Grouped(TorchLayer):
    def __init__(self, problem, form, threads):
        super().__init__(problem, form, threads)
        self.product = getattr(functional, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)
        if self.product is None:
            raise Refused("this PyTorch has no grouped product")
        self.bytes_per_weight = self.type.itemsize
        self.copies = problem.copies(problem.weights * self.bytes_per_weight)
        one = self.stacked()
        self.layers = [one] + [tuple(m.clone() for m in one) for _ in range(self.copies - 1)]

    def run(self, copy, loaded):
        x, ids, weights = loaded["x"], loaded["ids"].flatten(), loaded["weights"]
        into, out = (m.transpose(1, 2) for m in self.layers[copy])
        order = ids.argsort()
        tokens = order // self.problem.top_k
        ends = ids.bincount(minlength=self.problem.experts).cumsum(0).to(torch.int32)
        gate, up = self.product(x[tokens], into, offs=ends).chunk(2, -1)
        rows = self.product(functional.silu(gate) * up, out, offs=ends)
        rows *= weights.flatten()[order, None].to(rows.dtype)
        loaded["y"] = torch.zeros_like(x).index_add_(0, tokens, rows)


def make(subject, problem, form, threads):
    return {"torch_eager": Eager, "torch_grouped": Grouped}[subject](problem, form, threads)
