# SPDX-License-Identifier: MIT
"""What a Python competitor is given: the file that benchmarks/export_problem writes."""

import json
from dataclasses import dataclass

import numpy


class Skip(Exception):
    """This competitor cannot do this job; the text says why."""


@dataclass(frozen=True)
class Problem:
    """A layer of SwiGLU experts with weights as PyTorch stores them, an input and hmoe's result."""

    shape: str
    routing: str
    d_model: int
    widths: list
    top_k: int
    top_p: float
    router: numpy.ndarray  # [N×d]
    experts: list  # of (gate [h×d], up [h×d], down [d×h])
    x: numpy.ndarray  # [T×d]
    y: numpy.ndarray  # [T×d]

    def needs_top_k(self):
        if self.top_p:
            raise Skip("it has no top-p routing")

    def padded(self):
        """Experts filled up with zeros to the widest: what a layer does that knows only one width."""
        widest = max(self.widths)

        def pad(matrix, axis):
            missing = [(0, 0), (0, 0)]
            missing[axis] = (0, widest - matrix.shape[axis])
            return numpy.pad(matrix, missing)

        return [(pad(gate, 0), pad(up, 0), pad(down, 1)) for gate, up, down in self.experts]


def read(path):
    with open(path, "rb") as file:
        head = json.loads(file.readline())

        def matrix(rows, columns):
            return numpy.fromfile(file, numpy.float32, rows * columns).reshape(rows, columns)

        d, widths, tokens = head["d_model"], head["widths"], head["tokens"]
        router = matrix(len(widths), d)
        experts = [(matrix(h, d), matrix(h, d), matrix(d, h)) for h in widths]
        return Problem(
            head["shape"], head["routing"], d, widths, head["top_k"], head["top_p"],
            router, experts, matrix(tokens, d), matrix(tokens, d),
        )  # fmt: skip
