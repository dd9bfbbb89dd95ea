# SPDX-License-Identifier: MIT
"""Made-up results for the tests of the report: smooth curves plus noise, from no training at all."""

import math
import random

LOAD, PENALTY = "load-balance", "parameter-penalty"
BLOCKS, D_MODEL, BASE_PARAMETERS = 2, 64, 98_624
TOKENS = ["▁the", "▁of", "<s>", "&amp", "ing", "\n", '▁"', "tion", "▁a", "1913", "$x$", "é", "▁(", "ed"]


def arithmetic():
    return [72, 88, 104, 120, 136, 152, 168, 184]


def harmonic(widths):
    return len(widths) / sum(1 / width for width in widths)


def variant(
    name,
    title,
    widths,
    loss=PENALTY,
    router=("top-k", 2),
    control_of=None,
    seeds=(1,),
    bits=2.205,
    budget=3e12,
):
    dense = len(widths) == 1
    even = [1 / len(widths)] * len(widths)
    inverse = [1 / width / sum(1 / w for w in widths) for width in widths]
    goal = inverse if loss == "parameter-penalty" else even
    k = 1 if dense else router[1] if router[0].endswith("top-k") else 1.3
    predicted = k * sum(share * width for share, width in zip(goal, widths))
    known = router[0] == "top-k" and (loss is not None or len(set(widths)) == 1)
    return {
        "name": name,
        "title": title,
        "control_of": control_of,
        "dense": dense,
        "widths": widths,
        "router": router[0],
        "router_value": router[1],
        "losses": [] if loss is None else [{"name": loss, "coefficient": 0.1 if "penalty" in loss else 0.01}],
        "predicted_share": goal if known else None,
        "predicted_activated_width": predicted if known else None,
        "runs": [run(random.Random(f"{name} {seed}"), seed, widths, even, goal, k, bits, budget) for seed in seeds],
    }


def layers_of(source, share, k, widths):
    rows = []
    for _ in range(BLOCKS):
        row = [max(0.001, part * (1 + source.gauss(0, 0.03))) for part in share]
        rows.append([part / sum(row) for part in row])
    return rows, [k * sum(part * width for part, width in zip(row, widths)) for row in rows]


def run(source, seed, widths, even, goal, k, bits, budget, points=120):
    history, end = [], bits + source.gauss(0, 0.009)
    for index in range(points + 1):
        part = index / points
        settled = 1 - math.exp(-part * 12)
        share = [a + (b - a) * settled for a, b in zip(even, goal)]
        rows, per_layer = layers_of(source, share, k, widths)
        width = sum(per_layer) / BLOCKS
        loss = end + 2.2 * (math.exp(-part * 9) - math.exp(-9)) + 0.25 * (1 - part) ** 1.5
        history.append(
            {
                "step": 22 * index,
                "tokens": 22 * 1024 * index,
                "flops": budget * part,
                "train_loss": loss * 1.97 * math.log(2) + source.gauss(0, 0.05),
                "bits_per_byte": loss if index % 6 == 0 else None,
                "activated_width": width,
                "activated_parameters": BASE_PARAMETERS + 3 * D_MODEL * BLOCKS * width,
                "activated_width_per_layer": per_layer,
                "share_per_layer": rows,
            }
        )
    last = history[-1]
    per_token = 3 * 2 * (BASE_PARAMETERS + 3 * D_MODEL * BLOCKS * last["activated_width"])
    count = len(widths)
    return {
        "seed": seed,
        "final": {
            "bits_per_byte": last["bits_per_byte"],
            "nats_per_token": last["bits_per_byte"] * 1.97 * math.log(2),
            "activated_parameters": last["activated_parameters"],
            "activated_width": last["activated_width"],
            "activated_width_per_layer": last["activated_width_per_layer"],
            "activated_experts_per_layer": [k] * BLOCKS,
            "flops_per_token": per_token,
            "tokens_per_second": 31_000 + source.gauss(0, 400),
            "seconds": budget / per_token / 31_000,
            "tokens": budget / per_token,
            "steps": 2700,
            "share_per_layer": last["share_per_layer"],
        },
        "history": history,
        "difficulty": {
            "bins": [
                {
                    "from": low / 2,
                    "to": low / 2 + 0.5,
                    "tokens": int(20_000 * math.exp(-(((low - 7) / 5) ** 2))),
                    "mean_width_per_layer": [
                        last["activated_width"] * (1 + source.gauss(0, 0.012) - 0.004 * low) for _ in range(BLOCKS)
                    ],
                }
                for low in range(16)
            ],
            "correlation_per_layer": [source.uniform(-0.15, 0.01) for _ in range(BLOCKS)],
        },
        "top_tokens": [
            [
                [
                    {"token": source.choice(TOKENS), "count": source.randrange(20, 900), "lift": source.uniform(1.5, 6)}
                    for _ in range(10)
                ]
                for _ in range(count)
            ]
            for _ in range(BLOCKS)
        ],
        "distance": [matrix(source, count) for _ in range(BLOCKS)],
        "synergy": [matrix(source, count) for _ in range(BLOCKS)],
        "sample": 'Synthetic \\Syn*thet"ic\\, a. <b>Not</b> from a model & not from a book. ' * 4,
    }


def matrix(source, count):
    rows = [[0.0] * count for _ in range(count)]
    for i in range(count):
        for j in range(i):
            rows[i][j] = rows[j][i] = source.uniform(0.05, 0.6)
    return rows


def main_three(seeds, budget, bits=2.205):
    alike = {"seeds": seeds, "budget": budget, "bits": bits}
    pair = "homogeneous 8×117, HMoE's activated width"
    return [
        variant("homogeneous", "homogeneous 8×128, load balance 1e-2", [128] * 8, "load-balance", **alike),
        variant("hmoe", "HMoE arithmetic 9…23, parameter penalty 0.1", arithmetic(), **alike),
        variant("homogeneous-117", pair, [117] * 8, "load-balance", control_of="hmoe", **alike),
    ]


def results(variants, budget):
    return {
        "format": "hmoe-results-1",
        "machine": {"cpu": "Synthetic CPU 9000", "threads": 2, "compiler": "g++ 12.2.0", "flags": "-O3 -march=native"},
        "command": "language_model compare --list demo --threads 2",
        "corpus": {
            "name": "dict-gcide.txt",
            "train_bytes": 30_295_059,
            "heldout_bytes": 1_048_576,
            "train_tokens": 15_400_000,
            "eval_tokens": 98_304,
            "bytes_per_token": 1.97,
            "vocabulary": 512,
        },
        "model": {
            "d_model": D_MODEL,
            "blocks": BLOCKS,
            "heads": 2,
            "context": 128,
            "batch": 8,
            "parameters_without_experts": BASE_PARAMETERS,
        },
        "budget_flops": budget,
        "variants": variants,
    }


def demo():
    return results(main_three((1,), 3e12), 3e12)


def smoke():
    return results(main_three((1,), 2e10, bits=4.1), 2e10)


def full():
    budget = 8e12
    geometric = [4, 8, 16, 32, 64, 128, 257, 515]
    hybrid = [64, 64, 64, 64, 128, 128, 256, 256]
    even = [128] * 8
    top_p = "arithmetic, top-p 0.6, penalty 0.1, entropy 3e-2 (the paper's)"
    equal_top_p = "homogeneous 8×128, top-p 0.6, load balance 0.1, entropy 3e-2"
    variants = main_three((1, 2, 3, 4), budget, bits=2.015)
    for name, title, widths, loss, router, control_of, bits in (
        ("homogeneous-no-loss", "homogeneous 8×128, no auxiliary loss", even, None, ("top-k", 2), None, 2.02),
        ("arithmetic-no-loss", "arithmetic, no auxiliary loss", arithmetic(), None, ("top-k", 2), None, 2.025),
        ("arithmetic-load-balance", "arithmetic, load balance 1e-2", arithmetic(), LOAD, ("top-k", 2), None, 2.02),
        ("geometric", "geometric 1…128, penalty 0.1", geometric, PENALTY, ("top-k", 2), None, 2.1),
        ("hybrid", "hybrid 1,1,1,1,2,2,4,4, penalty 0.1", hybrid, PENALTY, ("top-k", 2), None, 2.01),
        ("top-p", top_p, arithmetic(), PENALTY, ("top-p", 0.6), None, 2.06),
        ("dense", "dense, all parameters active", [1024], None, ("top-k", 1), None, 2.12),
        ("homogeneous-top-p", equal_top_p, even, LOAD, ("top-p", 0.6), None, 2.05),
        ("homogeneous-13x79", "homogeneous 13×79, k = 1, raw weights", [79] * 13, LOAD, ("raw-top-k", 1), None, 2.0),
        ("homogeneous-10", "homogeneous 8×10, load balance 1e-2", [10] * 8, LOAD, ("top-k", 2), "geometric", 2.11),
    ):
        variants.append(variant(name, title, widths, loss, router, control_of, bits=bits, budget=budget))
    return results(variants, budget)
