# SPDX-License-Identifier: MIT
"""Memory of large gradients, which is used again: to make its pages anew in every step takes as long as the products of
some dozen tokens."""

import contextlib
import ctypes
import mmap
import weakref

import torch

LEAST_BYTES = 32 << 20  #: malloc itself keeps what is smaller

_MADV_FREE = getattr(mmap, "MADV_FREE", None)  # not on every system
_free = {}  # bytes → blocks that no tensor uses


def empty_like(tensor):
    """As torch.empty_like. The system takes memory that no tensor uses as soon as it needs some."""
    size = tensor.nbytes
    if size < LEAST_BYTES or _MADV_FREE is None or tensor.device.type != "cpu" or not tensor.is_contiguous():
        return torch.empty_like(tensor)
    blocks = _free.setdefault(size, [])
    try:
        block = blocks.pop()
    except IndexError:
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    in_use = (ctypes.c_char * size).from_buffer(block)  # lives as long as the tensor's memory
    weakref.finalize(in_use, _give_back, block, blocks).atexit = False
    return torch.frombuffer(in_use, dtype=tensor.dtype).view(tensor.shape)


def _give_back(block, blocks):
    with contextlib.suppress(OSError):  # memory that is locked stays
        block.madvise(_MADV_FREE)
    blocks.append(block)
