#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""One process and several, which share the experts and the tokens of each batch, train alike.

usage: ranks.py PROGRAM MPIEXEC, with the program language_model_mpi
"""
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

# As root, with more processes than cores, and without what containers forbid. MPICH ignores these.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1", "OMPI_MCA_plm": "isolated", "OMPI_MCA_btl": "self,vader",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
}
SIZES = ["--d-model", "16", "--blocks", "2", "--heads", "2", "--context", "32", "--vocabulary", "160", "--batch", "4",
         "--warmup", "5", "--evaluation-tokens", "2048", "--threads", "1", "--budget", "6e7"]
VARIANTS = [
    (2, "name=penalty,experts=4,total=64,loss=parameter-penalty:0.1"),
    # Shared experts, a router that is moved by counts, losses over sequences: what looks at the whole batch.
    (4, "name=moved,experts=5,total=60,router=sign-bias:2:0.01,shared=always-on:8,loss=load-balance:0.01,"
        "loss=sequence-balance:0.01,loss=z:0.001"),
]


def text(count=60000):
    draw = random.Random(7)
    words = ["".join(draw.choice(["ka", "to", "mi", "re", "lun", "sa", "ven"]) for _ in range(draw.randint(1, 4)))
             for _ in range(80)]
    return "".join(words[int(80 * draw.random() ** 2)] + (".\n" if draw.random() < 0.1 else " ") for _ in range(count // 6))


class Runs:
    def __init__(self, program, mpiexec, folder):
        self.program, self.mpiexec, self.folder = program, mpiexec, Path(folder)
        (self.folder / "text.txt").write_text(text())

    def call(self, ranks, out, variant, *more):
        command = [self.program, "train", "--text", self.folder / "text.txt", "--work", self.folder / "work", "--out",
                   self.folder / out, "--variant", variant, *SIZES, *more]
        if ranks > 1:
            command = [self.mpiexec, "-n", str(ranks), *command, "--expert-parallel"]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **ENVIRONMENT})

    def train(self, ranks, out, variant, *more):
        done = self.call(ranks, out, variant, *more)
        if done.returncode != 0:
            raise SystemExit(f"{out}: ended with {done.returncode}\n{done.stdout}{done.stderr}")
        name = variant.split(",")[0].split("=")[1]
        return json.loads((self.folder / out / f"{name}-seed1.json").read_text())["run"]


def same(found, expected, what, precision=0.0):
    if not math.isclose(found, expected, rel_tol=precision, abs_tol=0):
        raise SystemExit(f"{what}: {found!r} with several processes, {expected!r} with one")


def compare(runs, ranks, variant):
    name = variant.split(",")[0]
    one = runs.train(1, "one", variant)
    several = runs.train(ranks, "several", variant)
    steps = one["final"]["steps"]
    if not 8 <= steps <= 40 or len(several["history"]) != len(one["history"]):
        raise SystemExit(f"{name}: {steps} steps, {len(one['history'])} and {len(several['history'])} points")
    same(several["history"][0]["train_loss"], one["history"][0]["train_loss"], f"{name}, the first forward pass")
    for i, (a, b) in enumerate(zip(several["history"], one["history"])):
        same(a["train_loss"], b["train_loss"], f"{name}, loss of point {i}", 1e-5)
    same(several["final"]["bits_per_byte"], one["final"]["bits_per_byte"], f"{name}, bits per byte", 1e-5)
    if several["sample"] == "" or several["final"]["tokens"] != one["final"]["tokens"]:
        raise SystemExit(f"{name}: {several['final']['tokens']} tokens, {one['final']['tokens']} with one process")

    # The other's model, evaluated: in both directions, token by token the same loss.
    stem = name.split("=")[1] + "-seed1"
    for out, other in (("one", ranks), ("several", 1)):
        expected = json.loads((runs.folder / out / f"{stem}.json").read_text())["run"]
        (runs.folder / out / f"{stem}.json").unlink()
        again = runs.train(other, out, variant, "--resume")
        same(again["final"]["bits_per_byte"], expected["final"]["bits_per_byte"], f"{name}, {out} evaluated", 1e-14)
        for key in ("difficulty", "top_tokens", "sample", "history"):
            if again.get(key) != expected.get(key):
                raise SystemExit(f"{name}: {key} of {out} is another with {other} processes")
    print(f"{name}: {ranks} processes train like one, in {steps} steps")


def main():
    program, mpiexec = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(program, mpiexec, folder)
        for ranks, variant in VARIANTS:
            compare(runs, ranks, variant)
        for ranks, variant, words in (
            (3, VARIANTS[0][1], "a batch of 4 windows on 3 processes: give a --batch that is a multiple of them"),
            (2, "name=choice,experts=4,total=64,router=expert-choice:1", "looks at the whole batch"),
        ):
            done = runs.call(ranks, "refused", variant)
            if done.returncode == 0 or words not in done.stderr:
                raise SystemExit(f"expected: {words}\nended with {done.returncode}\n{done.stderr}")


if __name__ == "__main__":
    main()
