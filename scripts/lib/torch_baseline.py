# SPDX-License-Identifier: MIT
"""What PyTorch reaches on the same GPU, for scripts/gpu: a dense product of random bfloat16 values, a copy, and a layer of
SwiGLU experts in two ways: grouped_mm, and one product after the other. grouped_mm takes experts of one width, so unequal
ones are padded to the widest; their twins of equal widths need none. Rows of experts are never padded. Writes a JSON
object per line, with the shapes and tokens of benchmarks/cuda/probe.cu.

usage: torch_baseline.py            on a GPU
       torch_baseline.py --check    on the CPU: small layers both ways, padded and not, against each other
"""
import json
import sys

import torch
import torch.nn.functional as F

TYPE, DEVICE = torch.bfloat16, "cuda"
ODD = [9 + 2 * i for i in range(8)]
SHAPES = [
    ("hmoe_0.4b", [12288 * part // 128 for part in ODD], 768, 2),
    ("hmoe_0.4b_equal", [1536] * 8, 768, 2),
    ("hmoe_3b", [32768 * part // 128 for part in ODD], 2048, 2),
    ("hmoe_3b_equal", [4096] * 8, 2048, 2),
    ("qwen3_30b_a3b", [768] * 128, 2048, 8),
    ("mixtral", [14336] * 8, 4096, 2),
]
grouped_mm = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)  # public from PyTorch 2.10 on


def normal(*sizes, scale=0.02):
    return torch.randn(*sizes, device=DEVICE, dtype=TYPE) * scale


class Stopwatch:
    """Seconds on the device, the median of some rounds that begin with an L2 cache full of something else."""

    def __init__(self):
        self.other = torch.empty(256 << 20, dtype=torch.uint8, device=DEVICE)

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
    """Gate weights [T × k], the entries (token · k + choice) sorted by expert, and the number of entries of each expert."""
    weights, experts = torch.softmax(x.float() @ router, -1).topk(k, -1)
    weights = (weights / weights.sum(-1, keepdim=True)).to(TYPE)
    order = experts.flatten().argsort(stable=True)
    return weights, order, torch.bincount(experts.flatten(), minlength=router.shape[1])


def grouped(x, router, w_in, w_out, k):
    """One grouped product for each projection; rows go back to their tokens by the inverse permutation, without atomics."""
    weights, order, counts = routed(x, router, k)
    ends = counts.cumsum(0).to(torch.int32)
    gate, up = grouped_mm(x[order // k], w_in, offs=ends).chunk(2, -1)
    rows = grouped_mm(F.silu(gate) * up, w_out, offs=ends)
    places = torch.empty_like(order)
    places[order] = torch.arange(order.numel(), device=order.device)
    return (rows[places].view(*weights.shape, -1) * weights.unsqueeze(-1)).sum(1)


def looped(x, router, w_in, w_out, k):
    """One product after the other, as wide as each expert is: the host waits for the counts."""
    weights, order, counts = routed(x, router, k)
    tokens, weights = order // k, weights.flatten()[order].unsqueeze(-1)
    y, first = torch.zeros_like(x), 0
    for expert, count in enumerate(counts.tolist()):
        if count == 0:
            continue
        rows = slice(first, first + count)
        gate, up = (x[tokens[rows]] @ w_in[expert]).chunk(2, -1)
        y.index_add_(0, tokens[rows], (F.silu(gate) * up) @ w_out[expert] * weights[rows])
        first += count
    return y


def stacked(w_in, w_out, widths, d):
    """The weights in one tensor: as they are where all widths are equal, else filled up with zeros to the widest, rounded
    up to 64."""
    widest = widths[0] if len(set(widths)) == 1 else (max(widths) + 63) // 64 * 64
    all_in = torch.zeros(len(widths), d, 2 * widest, device=DEVICE, dtype=TYPE)
    all_out = torch.zeros(len(widths), widest, d, device=DEVICE, dtype=TYPE)
    for expert, width in enumerate(widths):
        all_in[expert, :, :width] = w_in[expert][:, :width]
        all_in[expert, :, widest : widest + width] = w_in[expert][:, width:]
        all_out[expert, :width] = w_out[expert]
    return all_in.requires_grad_(), all_out.requires_grad_()


def weights_of(widths, d):
    return [normal(d, 2 * width) for width in widths], [normal(width, d) for width in widths]


def measure(watch, name, widths, d, k):
    router = torch.randn(d, len(widths), device=DEVICE) * 0.02
    w_in, w_out = weights_of(widths, d)
    all_in, all_out = stacked(w_in, w_out, widths, d)
    for tokens in (1, 16, 256, 4096, 32768):
        x = normal(tokens, d, scale=1.0)
        rounds = 5 if tokens >= 4096 else 10
        result = {"shape": name, "tokens": tokens, "padded": len(set(widths)) > 1}
        with torch.no_grad():
            result["looped_us"] = 1e6 * watch.median(rounds, lambda: looped(x, router, w_in, w_out, k))
        try:
            with torch.no_grad():
                result["grouped_us"] = 1e6 * watch.median(rounds, lambda: grouped(x, router, all_in, all_out, k))
            if tokens >= 256:
                x.requires_grad_()

                def train():
                    all_in.grad = all_out.grad = x.grad = None
                    y = grouped(x, router, all_in, all_out, k)
                    y.backward(y.detach())

                result["grouped_training_us"] = 1e6 * watch.median(3, train)
        except (AttributeError, TypeError, RuntimeError) as reason:  # an older PyTorch, or not enough memory
            result["grouped_error"] = str(reason)[:200]
        print(json.dumps(result), flush=True)


def check():
    """Both ways compute the same layer, and padding changes nothing but the order of sums."""
    global DEVICE
    DEVICE = "cpu"
    torch.manual_seed(1)
    for widths, tokens, k in (([24, 40, 56], 19, 2), ([32] * 4, 16, 3), ([16, 48], 1, 1)):
        d = 64
        router = torch.randn(d, len(widths))
        w_in, w_out = weights_of(widths, d)
        all_in, all_out = stacked(w_in, w_out, widths, d)
        if all_in.shape[2] != (2 * widths[0] if len(set(widths)) == 1 else 128):
            sys.exit(f"widths {widths} were padded to {all_in.shape[2] // 2}")
        x = normal(tokens, d, scale=1.0)
        with torch.no_grad():
            one, other = grouped(x, router, all_in, all_out, k).float(), looped(x, router, w_in, w_out, k).float()
        difference = ((one - other).norm() / other.norm()).item()
        if not difference < 2e-2:
            sys.exit(f"widths {widths}: grouped and looped differ by {difference}")
        print(f"widths {widths}, {tokens} tokens: grouped and looped differ by {difference:.2g}")


def main():
    watch = Stopwatch()
    a, b = normal(8192, 8192), normal(8192, 8192)
    print(json.dumps({"dense_tflops": 2e-12 * 8192**3 / watch.median(20, lambda: a @ b)}), flush=True)
    source = torch.empty(1 << 30, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    print(json.dumps({"copy_tbs": 2e-12 * (1 << 30) / watch.median(10, lambda: target.copy_(source))}), flush=True)
    del a, b, source, target
    for shape in SHAPES:
        measure(watch, *shape)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    check() if sys.argv[1:] == ["--check"] else main()
