# SPDX-License-Identifier: MIT
"""Mixture-of-Experts layers with experts of unequal size, computed by the C++ library hmoe.

hmoe.ops            the experts of a layer as differentiable functions of torch tensors
hmoe.transformers   importing it makes experts_implementation="hmoe" available in transformers
hmoe.nn             modules

Importing hmoe itself does not import torch.
"""

from ._core import Bank, Error, __version__, built_for, instructions, release_scratch, scratch_bytes

__all__ = ["Bank", "Error", "__version__", "built_for", "instructions", "release_scratch", "scratch_bytes"]
