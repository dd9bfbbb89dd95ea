# SPDX-License-Identifier: MIT
"""An independent PyTorch implementation of model S, to check the language model of examples/language_model against.

It reads the tokens that the C++ program keeps in its work folder, trains one variant on them and prints the held-out
bits per byte as one line of JSON. Only formulas are shared with the C++ program, no code and no random numbers:

    scripts/demo                                      # or any training: the tokens stay in build/language_model
    python3 -m venv build/pytorch-venv && build/pytorch-venv/bin/pip install torch numpy sentencepiece
    build/pytorch-venv/bin/python examples/language_model/in_pytorch.py --tokens build/language_model/corpus-… --seed 1
"""


import argparse
import json
import math
import pathlib
import time

import numpy
import sentencepiece
import torch
from torch import nn
from torch.nn import functional

D_MODEL, BLOCKS, HEADS, CONTEXT, BATCH = 64, 2, 2, 128, 8
LEARNING_RATE, WARMUP_STEPS, FINAL_RATE = 4e-3, 100, 0.1
EVALUATION_TOKENS = 98304

# widths of the experts, how many a token gets, auxiliary loss, its coefficient
VARIANTS = {
    "homogeneous": ([128] * 8, 2, "load-balance", 1e-2),
    "arithmetic": ([8 * width for width in range(9, 24, 2)], 2, "penalty", 0.1),
    "control": ([117] * 8, 2, "load-balance", 1e-2),
}


class Corpus:
    """Tokens of 16 bits, as the C++ program left them, and how many bytes of text each piece stands for."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        self.train = torch.from_numpy(numpy.fromfile(folder / "train.tokens", "<u2").astype(numpy.int64))
        self.heldout = torch.from_numpy(numpy.fromfile(folder / "heldout.tokens", "<u2").astype(numpy.int64))
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        self.vocabulary = pieces.get_piece_size()
        self.piece_bytes = torch.tensor([
            1 if pieces.is_byte(i) else len(pieces.id_to_piece(i).replace("\u2581", " ").encode())
            for i in range(self.vocabulary)
        ])

    @staticmethod
    def windows(tokens, first):
        both = tokens[first[:, None] + torch.arange(CONTEXT + 1)]
        return both[:, :-1], both[:, 1:]

    def training_batch(self, generator):
        return self.windows(self.train, torch.randint(len(self.train) - CONTEXT, (BATCH,), generator=generator))

    def evaluation_batches(self):
        """Windows spread evenly over the held-out text, the first at its start, the last at its end."""
        count = min(EVALUATION_TOKENS // CONTEXT, (len(self.heldout) - 1) // CONTEXT) // BATCH * BATCH
        first = torch.arange(count) * (len(self.heldout) - 1 - CONTEXT) // (count - 1)
        for part in first.split(BATCH):
            yield self.windows(self.heldout, part)


class RMSNorm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.gain


def matrix(rows, columns, deviation):
    return nn.Parameter(deviation * torch.randn(rows, columns))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = matrix(3 * D_MODEL, D_MODEL, D_MODEL**-0.5)
        self.output = matrix(D_MODEL, D_MODEL, (2 * BLOCKS * D_MODEL) ** -0.5)
        half = D_MODEL // HEADS // 2
        angle = torch.arange(CONTEXT)[:, None] * 10000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def rotate(self, x):
        a, b = x.chunk(2, -1)
        return torch.cat([a * self.cos - b * self.sin, b * self.cos + a * self.sin], -1)

    def forward(self, x):
        batch = x.shape[0]
        qkv = (x @ self.qkv.T).view(batch, CONTEXT, 3, HEADS, D_MODEL // HEADS).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(self.rotate(qkv[0]), self.rotate(qkv[1]), qkv[2], is_causal=True)
        return y.transpose(1, 2).reshape(x.shape) @ self.output.T


class MixtureOfExperts(nn.Module):
    """SwiGLU experts of any widths behind a softmax router with top-k; keeps the counts and the loss of its last pass."""

    def __init__(self, widths, k, loss, coefficient):
        super().__init__()
        self.k, self.coefficient = k, coefficient
        self.router = matrix(len(widths), D_MODEL, 0.02)
        self.read = nn.ParameterList(matrix(2 * h, D_MODEL, D_MODEL**-0.5) for h in widths)
        self.write = nn.ParameterList(matrix(D_MODEL, h, (2 * BLOCKS * h) ** -0.5) for h in widths)
        cost = torch.tensor(widths, dtype=torch.float32)
        self.cost = cost / cost.mean() if loss == "penalty" else torch.ones_like(cost)

    def forward(self, x):
        tokens = x.reshape(-1, D_MODEL)
        probabilities = torch.softmax(tokens @ self.router.T, -1)
        best, chosen = probabilities.topk(self.k, -1)
        weights = best / best.sum(-1, keepdim=True)
        order = chosen.flatten().argsort(stable=True)  # all (token, choice) pairs, by expert
        self.counts = torch.bincount(chosen.flatten(), minlength=len(self.read))
        rows = (order // self.k).split(self.counts.tolist())
        outputs = []
        for read, write, row in zip(self.read, self.write, rows):
            gate, up = (tokens[row] @ read.T).chunk(2, -1)
            outputs.append((functional.silu(gate) * up) @ write.T)
        weighted = torch.cat(outputs) * weights.flatten()[order, None]
        y = torch.zeros_like(tokens).index_add(0, torch.cat(rows), weighted)
        # N Σ_i cost_i f_i P̂_i: the load-balancing loss of Switch where costs are 1, else HMoE's parameter penalty
        active = self.counts / len(tokens)
        self.loss = self.coefficient * len(self.read) * (self.cost * active * probabilities.mean(0)).sum()
        return y.view_as(x)


class Decoder(nn.Module):
    def __init__(self, vocabulary, variant):
        super().__init__()
        self.embedding = matrix(vocabulary, D_MODEL, D_MODEL**-0.5)
        self.attention_norm = nn.ModuleList(RMSNorm(D_MODEL) for _ in range(BLOCKS))
        self.attention = nn.ModuleList(Attention() for _ in range(BLOCKS))
        self.moe_norm = nn.ModuleList(RMSNorm(D_MODEL) for _ in range(BLOCKS))
        self.moe = nn.ModuleList(MixtureOfExperts(*variant) for _ in range(BLOCKS))
        self.norm = RMSNorm(D_MODEL)
        self.head = matrix(vocabulary, D_MODEL, 0.02)

    def forward(self, inputs):
        x = self.embedding[inputs]
        for b in range(BLOCKS):
            x = x + self.attention[b](self.attention_norm[b](x))
            x = x + self.moe[b](self.moe_norm[b](x))
        return self.norm(x) @ self.head.T

    def task_loss(self, inputs, targets, reduction="mean"):
        return functional.cross_entropy(self(inputs).flatten(0, 1), targets.flatten(), reduction=reduction)

    def counts(self):
        return torch.stack([moe.counts for moe in self.moe])


def flops_without_experts(vocabulary, experts):
    """Of training on one token: three forward passes of two FLOPs a weight; of the attention's square, half."""
    weights = BLOCKS * (4 * D_MODEL**2 + experts * D_MODEL) + vocabulary * D_MODEL
    return 3 * (2 * weights + BLOCKS * 2 * CONTEXT * D_MODEL)


@torch.no_grad()
def evaluate(model, corpus):
    """Bits per byte, and the share of all activations that each expert of each layer has."""
    nats, size, counts = 0.0, 0, 0
    for inputs, targets in corpus.evaluation_batches():
        nats += model.task_loss(inputs, targets, "sum").item()
        size += corpus.piece_bytes[targets].sum().item()
        counts = counts + model.counts()
    return nats / math.log(2) / size, counts / counts.sum(-1, keepdim=True)


def train(corpus, variant, seed, budget, rate=LEARNING_RATE, report=None):
    torch.manual_seed(seed)
    batches = torch.Generator().manual_seed(1000 + seed)
    widths = torch.tensor(variant[0])
    model = Decoder(corpus.vocabulary, variant)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    gains = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 1e-5}, {"params": gains, "weight_decay": 0.0}],
                                  betas=(0.9, 0.99), eps=1e-8, fused=True)
    base = flops_without_experts(corpus.vocabulary, len(widths))
    flops, width_sum, steps = 0.0, 0, 0
    while flops < budget:
        cosine = FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * flops / budget))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (steps + 1) / WARMUP_STEPS) * cosine
        task = model.task_loss(*corpus.training_batch(batches))
        optimizer.zero_grad()
        (task + sum(moe.loss for moe in model.moe)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        activated = (model.counts() * widths).sum().item()
        width_sum += activated
        flops += base * BATCH * CONTEXT + 3 * 2 * 3 * D_MODEL * activated
        steps += 1
        if report and steps % 200 == 0:
            report(steps, flops / budget, task.item())
    tokens = steps * BATCH * CONTEXT
    return model, {"steps": steps, "tokens": tokens, "training_width": width_sum / tokens / BLOCKS}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", required=True, help="folder corpus-… in the work folder of the C++ program")
    parser.add_argument("--variant", choices=VARIANTS, default="arithmetic")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget", type=float, default=3e12, help="training FLOPs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="show the loss on the way")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    corpus = Corpus(args.tokens)
    begin = time.time()
    show = (lambda step, done, loss: print(f"{step} {done:.3f} {loss:.4f} {time.time() - begin:.0f} s", flush=True))
    model, run = train(corpus, VARIANTS[args.variant], args.seed, args.budget, report=show if args.verbose else None)
    run["seconds"] = round(time.time() - begin, 1)
    run["bits_per_byte"], shares = evaluate(model, corpus)
    run["shares"] = [[round(s, 4) for s in layer] for layer in shares.tolist()]
    print(json.dumps({"variant": args.variant, "seed": args.seed, "budget": args.budget, **run}), flush=True)


if __name__ == "__main__":
    main()
