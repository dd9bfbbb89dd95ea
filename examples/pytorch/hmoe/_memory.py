# SPDX-License-Identifier: MIT
"""Memory of large gradients, which is used again: to make its pages anew in every step takes as long as the products of
some dozen tokens."""

import ctypes
import mmap
import weakref

import torch

LEAST_BYTES = 32 << 20  #: malloc itself keeps what is smaller
FLAGS = getattr(mmap, "MAP_PRIVATE", None), getattr(mmap, "MAP_ANONYMOUS", None), getattr(mmap, "MADV_FREE", None)

_free = {}  # bytes → blocks that no tensor uses


def empty_like(tensor):
    """As torch.empty_like. The system takes memory that no tensor uses as soon as it needs some."""
    size = tensor.nbytes
    if size < LEAST_BYTES or None in FLAGS or tensor.device.type != "cpu" or not tensor.is_contiguous():
        return torch.empty_like(tensor)
    blocks = _free.setdefault(size, [])
    try:
        block = blocks.pop()
    except IndexError:
        block = mmap.mmap(-1, size, flags=FLAGS[0] | FLAGS[1])
    in_use = (ctypes.c_char * size).from_buffer(block)  # lives as long as the tensor's memory
    weakref.finalize(in_use, _give_back, block, blocks).atexit = False
    return torch.frombuffer(in_use, dtype=tensor.dtype).view(tensor.shape)


def _give_back(block, blocks):
    block.madvise(FLAGS[2])
    blocks.append(block)
