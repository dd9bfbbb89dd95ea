# SPDX-License-Identifier: MIT
"""PyTorch's grouped product: tokens sorted by expert, one call for all experts, which must be of one width."""

import torch

NAME = "pytorch_grouped"
VERSION = f"torch {torch.__version__}"


def make(problem, threads):
    """A function from x [T×d] to y [T×d]."""
    problem.needs_top_k()
    torch.set_num_threads(threads)
    grouped_mm = getattr(torch.nn.functional, "grouped_mm", None) or torch._grouped_mm
    experts = problem.padded()
    router = torch.tensor(problem.router)
    # [N × d × 2h] and [N × h × d], each expert's matrix transposed as it lies.
    into = torch.stack([torch.cat([torch.tensor(gate), torch.tensor(up)]) for gate, up, _ in experts]).transpose(1, 2)
    out = torch.stack([torch.tensor(down) for _, _, down in experts]).transpose(1, 2)

    def run(x):
        with torch.inference_mode():
            x = torch.from_numpy(x)
            weights, chosen = (x @ router.T).softmax(-1).topk(problem.top_k)
            weights = weights / weights.sum(-1, keepdim=True)
            order = chosen.flatten().argsort()
            tokens = order // problem.top_k
            ends = chosen.flatten().bincount(minlength=len(experts)).cumsum(0).to(torch.int32)
            gate, up = grouped_mm(x[tokens], into, offs=ends).chunk(2, -1)
            rows = grouped_mm(torch.nn.functional.silu(gate) * up, out, offs=ends)
            rows *= weights.flatten()[order, None]
            return torch.zeros_like(x).index_add_(0, tokens, rows).numpy()

    return run
