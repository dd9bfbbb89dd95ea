#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Importance of experts and neurons by numpy, from the formulas of the papers: writes importance.json beside this file.

One layer in double: five SwiGLU experts of unequal widths, top 2 of a softmax, weights that add up to 1. The pass, its
gradients and every mean are computed here, over all tokens at once; hmoe adds up what its tapes hold, row by row.
usage: generate_importance.py
"""

import json
from pathlib import Path

import numpy as np

WIDTHS, D, TOKENS, K = (3, 5, 2, 4, 1), 6, 23, 2


def main():
    random = np.random.default_rng(20260731)
    parameters = {"router.weight": random.normal(size=(len(WIDTHS), D))}
    for e, width in enumerate(WIDTHS):
        for name, shape in (("gate", (width, D)), ("up", (width, D)), ("down", (D, width))):
            parameters[f"experts.{e}.{name}"] = random.normal(size=shape)
    x, dy = random.normal(size=(TOKENS, D)), random.normal(size=(TOKENS, D))

    logits = x @ parameters["router.weight"].T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    chosen = np.zeros_like(p, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-p, axis=1)[:, :K], True, axis=1)
    weights = np.where(chosen, p, 0)
    weights /= weights.sum(axis=1, keepdims=True)

    results = {name: [] for name in ("reap", "magnitude_times_activation", "squared_contribution", "heapr", "heapr_per_token")}
    for e in range(len(WIDTHS)):
        gate, up, down = (parameters[f"experts.{e}.{name}"] for name in ("gate", "up", "down"))
        rows = chosen[:, e]
        u = weights[rows, e]
        z = x[rows] @ gate.T
        a = z / (1 + np.exp(-z)) * (x[rows] @ up.T)  # [n, width]
        out = a @ down.T
        g = u[:, None] * dy[rows]  # the gradient of the loss by the expert's output
        results["reap"].append(np.mean(u * np.linalg.norm(out, axis=1)))
        effects = a[:, :, None] * down.T[None]  # [n, width, D]: what each neuron adds
        of_tokens = rows.mean()  # a mean over all tokens, of which n reach the expert
        results["magnitude_times_activation"].append(of_tokens * np.linalg.norm(effects, axis=2).mean(axis=0))
        results["squared_contribution"].append(
            of_tokens * ((u[:, None] * np.linalg.norm(effects, axis=2)) ** 2).mean(axis=0)
        )
        fisher = np.einsum("nk,nl->kl", g, g) / rows.sum()
        results["heapr"].append(of_tokens * 0.5 * np.einsum("nwk,kl,nwl->nw", effects, fisher, effects).mean(axis=0))
        results["heapr_per_token"].append(of_tokens * 0.5 * (np.einsum("nwk,nk->nw", effects, g) ** 2).mean(axis=0))

    plain = {name: [np.asarray(value).tolist() for value in values] for name, values in results.items()}
    text = json.dumps(
        {
            "numpy": np.__version__,
            "widths": WIDTHS,
            "parameters": {name: value.tolist() for name, value in parameters.items()},
            "x": x.tolist(),
            "dy": dy.tolist(),
            **plain,
        }
    )
    Path(__file__).with_name("importance.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
