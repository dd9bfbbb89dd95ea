# SPDX-License-Identifier: MIT
"""What PyTorch reaches on the same GPU, for scripts/gpu: a dense product of random bfloat16 values, a copy, and a layer of
SwiGLU experts in two ways: torch._grouped_mm (unequal experts padded to the widest) and one product after the other. Writes
a JSON object per line, with the shapes and tokens of benchmarks/cuda/probe.cu.
"""
import json

import torch
import torch.nn.functional as F

TYPE = torch.bfloat16
SHAPES = [
    ("hmoe_0.4b", [12288 * (9 + 2 * i) // 128 for i in range(8)], 768, 2),
    ("hmoe_3b", [32768 * (9 + 2 * i) // 128 for i in range(8)], 2048, 2),
    ("qwen3_30b_a3b", [768] * 128, 2048, 8),
    ("mixtral", [14336] * 8, 4096, 2),
]


def normal(*sizes, scale=0.02):
    return torch.randn(*sizes, device="cuda", dtype=TYPE) * scale


class Stopwatch:
    """Seconds on the device, the median of some rounds that begin with an L2 cache full of something else."""

    def __init__(self):
        self.other = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")

    def median(self, rounds, work):
        seconds = []
        for i in range(rounds + 2):
            self.other.zero_()
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize()
            if i >= 2:
                seconds.append(begin.elapsed_time(end) * 1e-3)
        return sorted(seconds)[len(seconds) // 2]


def routed(x, router, k):
    """Gate weights and tokens of the slots, sorted by expert, and the number of slots of each expert."""
    weights, experts = torch.softmax(x.float() @ router, -1).topk(k, -1)
    weights = weights / weights.sum(-1, keepdim=True)
    order = experts.flatten().argsort(stable=True)
    counts = torch.bincount(experts.flatten(), minlength=router.shape[1])
    return weights.flatten()[order].to(TYPE)[:, None], order // k, counts


def grouped(x, router, w_in, w_out, k):
    weights, tokens, counts = routed(x, router, k)
    ends = counts.cumsum(0).to(torch.int32)
    gate, up = torch._grouped_mm(x[tokens], w_in, offs=ends).chunk(2, -1)
    rows = torch._grouped_mm(F.silu(gate) * up, w_out, offs=ends) * weights
    return torch.zeros_like(x).index_add(0, tokens, rows)


def looped(x, router, w_in, w_out, k):
    weights, tokens, counts = routed(x, router, k)
    y, first = torch.zeros_like(x), 0
    for expert, count in enumerate(counts.tolist()):
        rows = slice(first, first + count)
        gate, up = (x[tokens[rows]] @ w_in[expert]).chunk(2, -1)
        y.index_add_(0, tokens[rows], (F.silu(gate) * up) @ w_out[expert] * weights[rows])
        first += count
    return y


def padded(w_in, w_out, widths, d):
    """All experts as wide as the widest, rounded up to 64: zeros in the additional rows."""
    widest = (max(widths) + 63) // 64 * 64
    all_in = torch.zeros(len(widths), d, 2 * widest, device="cuda", dtype=TYPE)
    all_out = torch.zeros(len(widths), widest, d, device="cuda", dtype=TYPE)
    for expert, width in enumerate(widths):
        all_in[expert, :, :width] = w_in[expert][:, :width]
        all_in[expert, :, widest : widest + width] = w_in[expert][:, width:]
        all_out[expert, :width] = w_out[expert]
    return all_in.requires_grad_(), all_out.requires_grad_()


def measure(watch, name, widths, d, k):
    router = torch.randn(d, len(widths), device="cuda") * 0.02
    w_in, w_out = [normal(d, 2 * width) for width in widths], [normal(width, d) for width in widths]
    stacked = padded(w_in, w_out, widths, d)
    for tokens in (1, 16, 256, 4096, 32768):
        x = normal(tokens, d, scale=1.0)
        rounds = 5 if tokens >= 4096 else 10
        result = {"shape": name, "tokens": tokens, "padded": len(set(widths)) > 1}
        with torch.no_grad():
            result["looped_us"] = 1e6 * watch.median(rounds, lambda: looped(x, router, w_in, w_out, k))
        try:
            with torch.no_grad():
                result["grouped_us"] = 1e6 * watch.median(rounds, lambda: grouped(x, router, *stacked, k))
            if tokens >= 256:
                x.requires_grad_()

                def train():
                    y = grouped(x, router, *stacked, k)
                    y.backward(y.detach())

                result["grouped_training_us"] = 1e6 * watch.median(3, train)
        except (AttributeError, RuntimeError) as reason:  # an older PyTorch, or not enough memory
            result["grouped_error"] = str(reason)[:200]
        print(json.dumps(result), flush=True)


def main():
    watch = Stopwatch()
    a, b = normal(8192, 8192), normal(8192, 8192)
    print(json.dumps({"dense_tflops": 2e-12 * 8192**3 / watch.median(20, lambda: a @ b)}), flush=True)
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    print(json.dumps({"copy_tbs": 2e-12 * (1 << 30) / watch.median(10, lambda: target.copy_(source))}), flush=True)
    del a, b, source, target
    for shape in SHAPES:
        measure(watch, *shape)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
