# SPDX-License-Identifier: MIT
"""Pruning: importance of neurons from calibration tokens, a budget over all experts of a layer, unequal widths.

    sums = hmoe.prune.Calibration(moe)
    with sums.watch():                          # passes of the model that has the layer
        model(batch).loss.backward()            # the gradient is needed by heapr alone
    smaller = hmoe.prune.neurons(moe, sums, share=0.5, importance="heapr")
    hmoe.nn.save("pruned.safetensors", smaller, what="pruned", by="HEAPr, half of the neurons")

In a model of transformers, unstack(model) makes hmoe.nn.Experts of its experts; these are pruned alike. Formulas and
sources are those of docs/compress.md.

    ordered, importance = hmoe.prune.order_by_importance(moe, sums.importance("heapr"))
    half = hmoe.prune.nested(ordered, sums.widths_within(importance, share=0.5))     # on the memory of `ordered`
"""

import contextlib
import copy

import torch
from torch import Tensor, nn

from . import _core, _nn_ops as ops
from ._core import Error
from .nn import Experts, MoE, NestedExperts, PackedExperts

__all__ = ["Calibration", "cut", "nested", "neurons", "order_by_importance", "replace", "take_neurons", "unstack"]


class Calibration:
    """Sums over passes of calibration tokens through the experts of one layer, an hmoe.nn.MoE or Experts, whose weights
    must not change meanwhile. The sums are in double, so the same batches in the same order give the same bits."""

    def __init__(self, layer):
        self.layer = layer
        self.experts = layer.experts if isinstance(layer, MoE) else layer
        self._widths = list(self.experts.widths)
        bank, _ = self._bank()
        self._sums = _core.make_calibration(bank)

    def _bank(self):
        """The experts as the kernels take them, and the tensors that keep their memory."""
        own = self.experts
        if own.widths != self._widths:
            raise Error(f"the calibration is of experts of widths {self._widths}, they have {own.widths} now")
        kept = [t.detach().to(ops.sum_type(t)).contiguous() for t in own.tensors()]
        return ops.make_bank(kept, self._widths, own.kind, own.bias, own.d_model), kept

    @torch.no_grad()
    def add(self, x: Tensor, ids: Tensor = None, weights: Tensor = None, dy: Tensor = None):
        """Adds the tokens x [..., d] with the choices of their experts, which an MoE makes itself, and dy [..., d], the
        gradient of the experts' output, where it is given."""
        x = x.detach().reshape(-1, self.experts.d_model)
        if ids is None:
            if not isinstance(self.layer, MoE):
                raise Error("add: experts have no router: give ids and weights")
            ids, weights = self.layer.choices(x, self.layer.route(x))
        recorded = self._add(x, ids, weights)
        if dy is not None:
            self._add_gradient(recorded, dy)

    def _add(self, x, ids, weights):
        own, (bank, kept) = self.experts, self._bank()
        weights = ops.weights_of_choices(ids, weights, len(self._widths))
        x, weights = (t.detach().to(kept[0].dtype).contiguous() for t in (x, weights))
        ids = ops.ids_of(ids).contiguous()
        _, saved, outputs = torch.ops.hmoe.nn_experts_recorded(
            x, ids, weights, kept, self._widths, own.kind, own.bias, False)
        self._sums.add(bank, *ids.shape, ids.data_ptr(), weights.data_ptr(), saved.data_ptr(), outputs.data_ptr())
        return ids, weights, saved

    def _add_gradient(self, recorded, dy):
        ids, weights, saved = recorded
        bank, kept = self._bank()
        dy = dy.detach().reshape(-1, self.experts.d_model).to(kept[0].dtype).contiguous()
        if dy.shape[0] != ids.shape[0]:
            raise Error(f"dy is of {dy.shape[0]} tokens, x of {ids.shape[0]}")
        self._sums.add_gradient(bank, *ids.shape, ids.data_ptr(), weights.data_ptr(), saved.data_ptr(), dy.data_ptr())

    @contextlib.contextmanager
    def watch(self):
        """Adds every pass of the experts while the context lasts, and its gradient where one is computed. Padding tokens
        of an MoE have no expert; they count as tokens of the calibration."""

        def after_forward(module, args, kwargs, y):
            with torch.no_grad():
                recorded = self._add(*args, **kwargs)
            if y.requires_grad:
                y.register_hook(lambda dy: self._add_gradient(recorded, dy))

        hook = self.experts.register_forward_hook(after_forward, with_kwargs=True)
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
        return [torch.tensor(values, dtype=torch.float64, device="cpu") for values in self._sums.importance(bank, name)]

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

    def widths_within(self, importance, share, counted="parameters", multiple=1, least_width=0):
        """The widths that a budget leaves; arguments as those of within()."""
        return [len(own) for own in self.within(importance, share, counted, multiple, least_width)]


@torch.no_grad()
def take_neurons(layer, chosen):
    """A layer (MoE or Experts) with the chosen neurons alone, a list for each expert, in the order given. It has memory of
    its own."""
    if len(chosen) != len(layer.widths):
        raise Error(f"neurons of {len(chosen)} experts were chosen, the layer has {len(layer.widths)}")
    _check_own(layer)
    result = copy.deepcopy(layer)
    experts = result.experts if isinstance(result, MoE) else result
    for e, (expert, own) in enumerate(zip(experts, chosen)):
        index = torch.as_tensor(own, dtype=torch.int64, device="cpu")
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < expert.width:
            raise Error(f"neurons {int(index.min())} to {int(index.max())} of expert {e} were chosen, it has {expert.width}")
        for name, values in list(expert.named_parameters()):
            if name not in ("down_bias", "mix", "constant"):  # neurons are rows of gate and up, columns of down and of lanes' biases
                kept = values.index_select(1 if name == "down" or name.endswith("_bias") else 0, index)
                setattr(expert, name, nn.Parameter(kept, requires_grad=values.requires_grad))
        expert.width = experts.widths[e] = index.numel()
    return result


def neurons(layer, sums, share, *, importance="squared_contribution", counted="parameters", multiple=1, least_width=0):
    """A layer with the neurons that the budget leaves (Calibration.within), each expert of its own width, possibly 0.
    `importance`: a name, or a tensor [h] for each expert."""
    values = sums.importance(importance) if isinstance(importance, str) else importance
    return take_neurons(layer, sums.within(values, share, counted, multiple, least_width))


def _check_own(layer):
    experts = layer.experts if isinstance(layer, MoE) else layer
    if not isinstance(experts, Experts):
        what = "packed" if isinstance(experts, PackedExperts) else "nested"
        raise Error(f"the experts are {what}: take the layer that they were made of" + (", or cut()" if what == "nested" else ""))


def order_by_importance(layer, importance):
    """(layer, importance): a layer (MoE or Experts) whose neurons stand in descending order of importance, a tensor [h] for
    each expert, ties in their old order; and that importance, in the same order. Outputs stay but for rounding. It has
    memory of its own."""
    values = [torch.as_tensor(own, dtype=torch.float64, device="cpu") for own in importance]
    if [own.numel() for own in values] != list(layer.widths):
        raise Error(f"importance is of widths {[own.numel() for own in values]}, the layer's are {list(layer.widths)}")
    order = [own.argsort(descending=True, stable=True) for own in values]
    return take_neurons(layer, order), [own[index] for own, index in zip(values, order)]


def nested(layer, widths):
    """The layer (MoE or Experts) at smaller widths: of each expert the first neurons, where order_by_importance has put the
    important ones. It has no memory of its own: its router is the layer's, its experts are views, so it sees changed
    weights at once, and its gradients go to the layer's parameters. Several of them, for several widths, train together."""
    _check_own(layer)
    if isinstance(layer, MoE):
        return layer._with_experts(NestedExperts(layer.experts, widths))
    return NestedExperts(layer, widths)


def cut(layer):
    """A nested layer with memory of its own."""
    experts = layer.experts if isinstance(layer, MoE) else layer
    if not isinstance(experts, NestedExperts):
        raise Error("cut: the experts are not nested")
    whole = layer._with_experts(experts.whole) if isinstance(layer, MoE) else experts.whole
    return take_neurons(whole, [range(h) for h in experts.widths])


# Models of transformers.


def replace(model, name, module):
    """Puts a module in the place of that name in a model."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


@torch.no_grad()
def unstack(model):
    """Makes hmoe.nn.Experts of all experts of a transformers model that go through its interface for them, in their place:
    matrices for each expert in place of stacked tensors. Returns name → Experts. One layer at a time is in memory twice.
    Saved with the prefix `name` without its "experts", they are layers of docs/checkpoints.md.

        sums = {name: hmoe.prune.Calibration(experts) for name, experts in hmoe.prune.unstack(model).items()}
    """
    from . import transformers as adapter

    known = set(map(id, adapter._experts_of(model)))
    stacked = {name: module for name, module in model.named_modules() if id(module) in known}
    result = {}
    for name, module in stacked.items():
        function, limit, alpha, interleaved = adapter._recognise(module)
        function = {"relu2": "squared_relu"}.get(function, function)
        plain = function in ops.ACTIVATIONS and (limit, alpha) == ((7.0, 1.702) if function == "gpt_oss" else (float("inf"), 1.0))
        if not plain or getattr(module, "has_post_expert_norm", False):
            raise Error(f"{name} ({type(module).__name__}) computes {function} with a limit of {limit:g}, or a norm behind "
                        f"experts: hmoe.nn has {', '.join(ops.ACTIVATIONS)} without these")  # fmt: skip
        result[name] = _unstacked(module, function, interleaved)
        replace(model, name, result[name])
    return result


def _unstacked(module, function, interleaved):
    gated, bias = module.has_gate, module.has_bias
    first, last = module.gate_up_proj if gated else module.up_proj, module.down_proj
    if module.is_transposed:
        first, last = first.transpose(1, 2), last.transpose(1, 2)
    count, d_model, width = last.shape
    experts = Experts(d_model, [width] * count, f"{'glu' if gated else 'mlp'}.{function}", bias, dtype=last.dtype)

    def lanes(rows):
        """Rows of the gate and of up, or of up alone."""
        if not gated:
            return {"up": rows}
        gate, up = (rows[::2], rows[1::2]) if interleaved else rows.chunk(2)
        return {"gate": gate, "up": up}

    first_bias = None if not bias else module.gate_up_proj_bias if gated else module.up_proj_bias
    for e, expert in enumerate(experts):
        values = {"down": last[e], **lanes(first[e])}
        if bias:
            values |= {f"{name}_bias": rows[None] for name, rows in lanes(first_bias[e]).items()}
            values["down_bias"] = module.down_proj_bias[e][None]
        for name, tensor in values.items():
            getattr(expert, name).copy_(tensor)
            getattr(expert, name).requires_grad_(last.requires_grad)
    return experts
