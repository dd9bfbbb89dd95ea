# SPDX-License-Identifier: MIT
"""The Mixtral block of Hugging Face's transformers on PyTorch. Its experts are a list, so they may differ in width."""

import torch
import transformers
from transformers.models.mixtral import modeling_mixtral

NAME = "pytorch_mixtral"
VERSION = f"torch {torch.__version__}, transformers {transformers.__version__}"


def block(problem):
    """The block with the problem's weights."""
    problem.needs_top_k()

    def config(width):
        return transformers.MixtralConfig(
            hidden_size=problem.d_model,
            intermediate_size=width,
            num_local_experts=len(problem.widths),
            num_experts_per_tok=problem.top_k,
        )

    with torch.device("meta"):  # no memory before the weights are known
        made = modeling_mixtral.MixtralSparseMoeBlock(config(1))
        made.experts = torch.nn.ModuleList(
            modeling_mixtral.MixtralBlockSparseTop2MLP(config(width)) for width in problem.widths
        )
    weights = {"gate.weight": problem.router}
    for number, (gate, up, down) in enumerate(problem.experts):
        weights |= {f"experts.{number}.w{i}.weight": value for i, value in ((1, gate), (3, up), (2, down))}
    made.load_state_dict({name: torch.tensor(value) for name, value in weights.items()}, assign=True)
    return made


def make(problem, threads):
    """A function from x [T×d] to y [T×d]."""
    torch.set_num_threads(threads)
    moe = block(problem)

    def run(x):
        with torch.inference_mode():
            return moe(torch.from_numpy(x)[None])[0][0].numpy()

    return run


def make_training(problem, threads):
    """{phase: function from x}, the phases of benchmarks/training.cpp."""
    torch.set_num_threads(threads)
    moe = block(problem)
    optimizer = torch.optim.AdamW(moe.parameters(), lr=1e-5, fused=True)
    widths = torch.tensor(problem.widths, dtype=torch.float32)

    def forward(x):
        return moe(torch.from_numpy(x)[None].requires_grad_())

    def loss(y, logits):
        # The parameter penalty and the router entropy of the paper, and ½‖y‖², whose gradient is y.
        p = logits.softmax(-1)
        chosen = torch.zeros_like(p).scatter(-1, p.topk(problem.top_k).indices, 1.0)
        penalty = (chosen.mean(0) * p.mean(0) * widths / widths.mean()).sum() * len(problem.widths)
        entropy = -(p * (p + 1e-9).log()).sum(-1).mean()
        return 0.5 * (y * y).sum() + 0.1 * penalty + 0.03 * entropy

    graph = {}

    def backward(x):
        if graph.get("tokens") != len(x):  # what it goes back from is made once
            graph.update(tokens=len(x), loss=loss(*forward(x)))
        graph["loss"].backward(retain_graph=True)

    def step(x):
        optimizer.zero_grad()
        loss(*forward(x)).backward()
        optimizer.step()

    return {"forward": forward, "backward": backward, "step": step}
