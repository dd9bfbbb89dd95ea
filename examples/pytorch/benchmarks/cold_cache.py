# SPDX-License-Identifier: MIT
"""Weights that come from memory, as those of a layer of a model do, and not from a cache that another call has just filled."""

import functools
import pathlib

import numpy


@functools.cache
def _memory():
    try:
        sizes = pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
        size = max(int(path.read_text(encoding="utf-8").strip().removesuffix("K")) for path in sizes) * 1024
    except (OSError, ValueError):
        size = 64 * 2**20
    return numpy.zeros(size * 5 // 4, numpy.uint8)


def empty_cache():
    """Fills the last-level cache with something else."""
    memory = _memory()
    numpy.add(memory, 1, out=memory)
