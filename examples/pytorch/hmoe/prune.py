# SPDX-License-Identifier: MIT
"""Pruning of hmoe.nn.MoE: importance of neurons from calibration tokens, a budget over all experts, unequal widths.

    sums = hmoe.prune.Calibration(moe)
    with sums.watch():                          # passes of the model that has the layer
        model(batch).loss.backward()            # the gradient is needed by heapr alone
    smaller = hmoe.prune.neurons(moe, sums, share=0.5, importance="heapr")
    hmoe.nn.save("pruned.safetensors", smaller, what="pruned", by="HEAPr, half of the neurons")

Formulas and sources are those of docs/compress.md.
"""

import contextlib
import copy

import torch
from torch import Tensor, nn

from . import _core, _nn_ops as ops
from ._core import Error

__all__ = ["Calibration", "neurons", "take_neurons"]


class Calibration:
    """Sums over passes of calibration tokens through one layer, whose weights must not change meanwhile. The sums are in
    double, so the same batches in the same order give the same bits."""

    def __init__(self, moe):
        self.moe = moe
        self._widths = list(moe.widths)
        bank, _ = self._bank()
        self._sums = _core.make_calibration(bank)

    def _bank(self):
        """The experts as the kernels take them, and the tensors that keep their memory."""
        if self.moe.widths != self._widths:
            raise Error(f"the calibration is of a layer of widths {self._widths}, it has {self.moe.widths} now")
        kept = [t.detach().to(ops._sum_type(t)).contiguous() for t in self.moe.tensors()]
        return ops._bank(kept, self._widths, self.moe.kind, self.moe.bias, self.moe.d_model), kept

    @torch.no_grad()
    def add(self, x: Tensor, dy: Tensor = None, mask: Tensor = None):
        """Adds the tokens x [..., d], and dy, the gradient of the layer's output, where it is given. mask [...]: False
        where a token is padding, which is left out."""
        recorded = self._add(x, mask)
        if dy is not None:
            self._add_gradient(recorded, dy)

    def _add(self, x, mask=None):
        tokens = x.detach().reshape(-1, self.moe.d_model)
        valid = None if mask is None else mask.reshape(-1).to(torch.bool)
        tokens = tokens if valid is None else tokens[valid]
        bank, kept = self._bank()
        tokens = tokens.to(kept[0].dtype).contiguous()
        routing = self.moe.route(tokens)
        ids, weights = routing.ids.to(torch.int64).contiguous(), routing.weights.detach().to(kept[0].dtype).contiguous()
        _, saved, outputs = torch.ops.hmoe.nn_experts_recorded(
            tokens, ids, weights, kept, self._widths, self.moe.kind, self.moe.bias, False)
        self._sums.add(bank, *ids.shape, ids.data_ptr(), weights.data_ptr(), saved.data_ptr(), outputs.data_ptr())
        return ids, weights, saved, valid

    def _add_gradient(self, recorded, dy):
        ids, weights, saved, valid = recorded
        bank, kept = self._bank()
        dy = dy.detach().reshape(-1, self.moe.d_model)
        dy = (dy if valid is None else dy[valid]).to(kept[0].dtype).contiguous()
        if dy.shape[0] != ids.shape[0]:
            raise Error(f"dy is of {dy.shape[0]} tokens, x of {ids.shape[0]}")
        self._sums.add_gradient(bank, *ids.shape, ids.data_ptr(), weights.data_ptr(), saved.data_ptr(), dy.data_ptr())

    @contextlib.contextmanager
    def watch(self):
        """Adds every pass of the layer while the context lasts, and its gradient where one is computed."""

        def after_forward(module, args, kwargs, output):
            with torch.no_grad():
                recorded = self._add(args[0], args[1] if len(args) > 1 else kwargs.get("mask"))
            y = output[0] if isinstance(output, tuple) else output
            if y.requires_grad:
                y.register_hook(lambda dy: self._add_gradient(recorded, dy))

        hook = self.moe.register_forward_hook(after_forward, with_kwargs=True)
        try:
            yield self
        finally:
            hook.remove()

    @property
    def loads(self):
        """[N] rows of each expert for each token."""
        return self._sums.loads()

    def importance(self, name="squared_contribution"):
        """A tensor [h] for each expert: "magnitude_times_activation", "squared_contribution", or "heapr", which needs
        gradients."""
        bank, _ = self._bank()
        return [torch.tensor(values, dtype=torch.float64) for values in self._sums.importance(bank, name)]

    def within(self, importance, share, counted="parameters", multiple=1, least_width=0):
        """The neurons that a budget leaves, a list for each expert: neurons of all experts are ranked together, by
        importance per cost.

        share        of the cost of all neurons that may stay, 0 to 1
        counted      "parameters", or "flops": parameters times the expert's rows per token of the calibration
        multiple     widths become multiples of it
        least_width  every expert keeps as many
        """
        bank, _ = self._bank()
        values = [list(map(float, of_expert)) for of_expert in importance]
        return self._sums.within(bank, values, share, counted, multiple, least_width)


@torch.no_grad()
def take_neurons(moe, chosen):
    """A layer with the chosen neurons alone, a list for each expert, in the order given. It has memory of its own."""
    if len(chosen) != len(moe.widths):
        raise Error(f"neurons of {len(chosen)} experts were chosen, the layer has {len(moe.widths)}")
    result = copy.deepcopy(moe)
    for e, (expert, own) in enumerate(zip(result.experts, chosen)):
        index = torch.as_tensor(own, dtype=torch.int64)
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < expert.width:
            raise Error(f"neurons {int(index.min())} to {int(index.max())} of expert {e} were chosen, it has {expert.width}")
        for name, values in list(expert.named_parameters()):
            if name != "down_bias":  # neurons are rows of gate and up, columns of down and of lanes' biases
                kept = values.index_select(1 if name == "down" or name.endswith("_bias") else 0, index)
                setattr(expert, name, nn.Parameter(kept, requires_grad=values.requires_grad))
        expert.width = result.widths[e] = index.numel()
    return result


def neurons(moe, sums, share, *, importance="squared_contribution", counted="parameters", multiple=1, least_width=0):
    """A layer with the neurons that the budget leaves (Calibration.within), each expert of its own width, possibly 0.
    `importance`: a name, or a tensor [h] for each expert."""
    values = sums.importance(importance) if isinstance(importance, str) else importance
    return take_neurons(moe, sums.within(values, share, counted, multiple, least_width))
