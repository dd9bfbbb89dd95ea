# SPDX-License-Identifier: MIT
"""What a peer is given: the folder that benchmarks/peers.cpp writes (problem.hpp has its files)."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy


class Refused(Exception):
    """The peer cannot do this job; the text says why."""


@dataclass(frozen=True)
class Input:
    """Tokens, and the experts that the router chose for each."""

    x: numpy.ndarray  # float32 [T×d]
    ids: numpy.ndarray  # int32 [T×k]
    weights: numpy.ndarray  # float32 [T×k]


class Problem:
    """A layer of SwiGLU experts."""

    def __init__(self, folder):
        self.folder = Path(folder)
        said = json.loads((self.folder / "problem.json").read_text(encoding="utf-8"))
        self.shape, self.d_model, self.widths, self.top_k = said["shape"], said["d_model"], said["widths"], said["top_k"]
        self.cold_bytes, self.said = said["cold_bytes"], said["inputs"]
        self.experts, self.width = len(self.widths), max(self.widths)
        self.starts = numpy.cumsum([0] + [3 * width * self.d_model for width in self.widths])
        self.values = numpy.memmap(self.folder / "weights.bin", numpy.float32, "r", shape=(int(self.starts[-1]),))

    @property
    def weights(self):
        """How many there are where every expert has the largest width."""
        return 3 * self.experts * self.width * self.d_model

    def copies(self, bytes_of_one):
        """How many copies of that size it takes that weights are cold when their turn comes."""
        return max(1, math.ceil(self.cold_bytes / bytes_of_one))

    def expert(self, number):
        """(gate [h×d], up [h×d], down [d×h]) as they are: views of a file."""
        h, size = self.widths[number], self.widths[number] * self.d_model
        own = self.values[self.starts[number] : self.starts[number + 1]]
        return (own[:size].reshape(h, -1), own[size : 2 * size].reshape(h, -1), own[2 * size :].reshape(-1, h))

    def round_up(self, multiple):
        """Pads to a multiple of that: what a peer's kernels need."""
        self.width = -(-self.width // multiple) * multiple

    def padded(self, number):
        """The same, filled up with zeros to the widest: for a peer that knows only one width."""
        gate, up, down = self.expert(number)
        missing = self.width - self.widths[number]
        if missing == 0:
            return gate, up, down
        return tuple(numpy.pad(m, pad) for m, pad in ((gate, ((0, missing), (0, 0))), (up, ((0, missing), (0, 0))),
                                                      (down, ((0, 0), (0, missing)))))  # fmt: skip

    def inputs(self, tokens, load):
        for said in self.said:
            if (said["tokens"], said["load"]) == (tokens, load):
                return [self.input(tokens, load, number) for number in range(said["count"])]
        raise Refused(f"the problem has no inputs of {tokens} tokens with the load {load}")

    def input(self, tokens, load, number):
        with open(self.folder / f"{tokens}-{load}-{number}.bin", "rb") as file:
            parts = ((numpy.float32, self.d_model), (numpy.int32, self.top_k), (numpy.float32, self.top_k))
            return Input(*(numpy.fromfile(file, kind, tokens * columns).reshape(tokens, columns) for kind, columns in parts))

    def expected(self, tokens, load):
        """What hmoe makes of the first input in float."""
        return numpy.fromfile(self.folder / f"{tokens}-{load}.y.bin", numpy.float32).reshape(tokens, self.d_model)


def to_bf16(values):
    """The bits of bfloat16, rounded to nearest even."""
    bits = numpy.ascontiguousarray(values, numpy.float32).view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def from_bf16(bits):
    return (bits.astype(numpy.uint32) << 16).view(numpy.float32)
