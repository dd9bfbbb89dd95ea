# SPDX-License-Identifier: MIT
"""Trains a layer of unequal experts, prunes it to half of its neurons, and saves and loads the result.

    python examples/pytorch/walkthrough/train_and_prune.py
"""

import os
import tempfile

import torch
from torch import nn

import hmoe.nn
import hmoe.prune
import hmoe.widths

D, STEPS = 32, 150


MAPS = torch.randn(4, D, D, generator=torch.Generator().manual_seed(2)) / D**0.5


def batch(generator, tokens=256):
    """Tokens of four kinds, each with a function of its own; that of the last two is a sum of two."""
    kind = torch.randint(4, (tokens,), generator=generator)
    x = 4 * torch.eye(4, D)[kind] + torch.randn(tokens, D, generator=generator)
    each = torch.tanh(torch.einsum("td,kde->tke", x, MAPS))
    both = each + each.flip(1)
    return x, torch.where((kind < 2)[:, None], each[torch.arange(tokens), kind], both[torch.arange(tokens), kind])


def train(moe, generator, steps, rate):
    """The task's loss at the first steps and at the last ones, and the activated width at the end."""
    optimizer = torch.optim.AdamW(moe.parameters(), lr=rate)
    history = []
    for _ in range(steps):
        x, target = batch(generator)
        y, routed = moe(x, return_routed=True)
        task = nn.functional.mse_loss(y, target)
        optimizer.zero_grad()
        (task + routed.loss).backward()
        optimizer.step()
        history.append(task.item())
    tenth = max(steps // 10, 1)
    return sum(history[:tenth]) / tenth, sum(history[-tenth:]) / tenth, routed.activated_width.item()


def main():
    torch.set_num_threads(1)  # so small a layer has no work for more
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    # Eight SwiGLU experts whose widths grow 9 : 11 : … : 23; the penalty makes the router prefer narrow ones.
    moe = hmoe.nn.MoE(D, hmoe.widths.arithmetic(8, 512), router="top_p", p=0.6,
                      losses={"parameter_penalty": 0.01, "router_entropy": 0.003})  # fmt: skip
    print(f"widths {moe.widths}")
    first, last, width = train(moe, generator, STEPS, 1e-2)
    print(f"loss {first:.3f} → {last:.3f}, activated width {width:.0f} of {sum(moe.widths)}")

    # Which neurons matter, from the gradients of 2,048 further tokens.
    sums = hmoe.prune.Calibration(moe)
    with sums.watch():
        for _ in range(8):
            x, target = batch(generator)
            nn.functional.mse_loss(moe(x), target, reduction="sum").backward()
    moe.zero_grad()
    half = hmoe.prune.neurons(moe, sums, share=0.5, importance="heapr")
    print(f"half of the neurons: widths {half.widths}")

    held_out, target = batch(generator, 1024)
    with torch.no_grad():
        whole, cut = (nn.functional.mse_loss(layer(held_out), target).item() for layer in (moe, half))
    print(f"held-out loss: whole {whole:.3f}, pruned {cut:.3f}")
    train(half, generator, STEPS // 3, 3e-3)
    with torch.no_grad():
        tuned = nn.functional.mse_loss(half(held_out), target).item()
    print(f"fine-tuned {tuned:.3f}")

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "pruned.safetensors")
        hmoe.nn.save(path, {"layers.0.": half}, what="pruned", by="HEAPr, half of the neurons")
        (manifest,) = hmoe.nn.read_manifest(path)
        widths = [expert["width"] for expert in manifest["experts"]]
        loaded = hmoe.nn.load(path, hmoe.nn.MoE(manifest["d_model"], widths, router="top_p", p=0.6), "layers.0.")
    with torch.no_grad():
        same = torch.equal(loaded(held_out), half(held_out))
    print(f"loaded from a file, the same bits: {same}")
    return {"first": first, "last": last, "whole": whole, "cut": cut, "tuned": tuned, "same": same}


if __name__ == "__main__":
    main()
