# SPDX-License-Identifier: MIT
"""Mixture-of-Experts layers with experts of unequal size, computed by the C++ library hmoe.

hmoe.ops            the experts of a layer as differentiable functions of torch tensors
hmoe.transformers   importing it makes experts_implementation="hmoe" available in transformers
hmoe.nn             layers of unequal experts as modules; hmoe.widths: their widths
hmoe.prune          importance of neurons, budgets, unequal widths; for models of transformers, too

Importing hmoe itself does not import torch.
"""

from ._core import Bank, Error, __version__, built_for, instructions, release_scratch, scratch_bytes

__all__ = ["Bank", "Error", "__version__", "built_for", "instructions", "release_scratch", "scratch_bytes"]
