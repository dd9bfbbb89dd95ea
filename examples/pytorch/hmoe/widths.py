# SPDX-License-Identifier: MIT
"""Widths of experts: relative sizes turned into hidden widths with an exact sum (hmoe::widths).

    arithmetic(count=8, total=12288)    # 9 : 11 : … : 23, the sizes of HMoE (arXiv 2408.10681, section 4)
"""

from . import _core

__all__ = ["arithmetic", "geometric", "hybrid", "list_of", "uniform"]


def arithmetic(count, total, first=9.0, last=23.0, multiple=1):
    """Relative sizes from `first` to `last` in equal steps."""
    return _core.widths_arithmetic(count, total, first, last, multiple)


def geometric(count, total, ratio=2.0, multiple=1):
    """Relative sizes 1, ratio, ratio², …"""
    return _core.widths_geometric(count, total, ratio, multiple)


def hybrid(count, total, multiple=1):
    """Half of the experts of size 1, a quarter of size 2, a quarter of size 4."""
    return _core.widths_hybrid(count, total, multiple)


def list_of(relative, total, multiple=1):
    """The given relative sizes."""
    return _core.widths_list(list(relative), total, multiple)


def uniform(count, total):
    """All experts alike."""
    return _core.widths_uniform(count, total)
