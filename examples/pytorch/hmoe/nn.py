# SPDX-License-Identifier: MIT
"""Mixture-of-Experts layers whose experts differ in width, as torch modules on hmoe's CPU kernels.

    moe = hmoe.nn.MoE(768, hmoe.widths.arithmetic(8, 12288), router="top_p", p=0.6,
                      losses={"parameter_penalty": 0.1, "router_entropy": 0.03})
    y, routed = moe(x, return_routed=True)
    (task_loss(y) + routed.loss).backward()

Parameters are ordinary tensors, used where they are. A token's output has the same bits in any batch and on any number
of threads; passes with and without gradients may differ in the last bits. Ids of experts are int64 [tokens, choices]; an id that is no expert is skipped, so −1 stands for "none".
"""

import copy
import json
import math
from typing import Callable, NamedTuple, Optional

import torch
from torch import Tensor, nn

from . import _core, _nn_ops as ops
from ._core import Error

__all__ = ["Expert", "Experts", "MoE", "NestedExperts", "PackedExperts", "Routed", "Router", "Routing", "load",
           "read_manifest", "save"]  # fmt: skip

LOSSES = ("load_balance", "parameter_penalty", "router_entropy", "z", "importance")
SELECTIONS = {"top_k": "k", "top_p": "p", "threshold": "minimum"}


class Routing(NamedTuple):
    """What a router says of T tokens and N experts."""

    ids: Tensor  # int64 [T, choices], −1 where a token has fewer experts
    weights: Tensor  # [T, choices]
    logits: Optional[Tensor] = None  # [T, N], for auxiliary losses
    probabilities: Optional[Tensor] = None  # [T, N]


class Routed(NamedTuple):
    """What a layer tells of a batch beside its output."""

    losses: dict  # name → value without its coefficient
    loss: Tensor  # Σ coefficient × value: what to add to the task's loss
    tokens_per_expert: Tensor  # int64 [N], shared experts last
    activated_parameters: Tensor  # of experts, per token, on average
    activated_width: Tensor  # hidden values per token, on average
    routing: Routing


class Expert(nn.Module):
    """The weights of one expert, [h × d] gate and up (an MLP has up alone), [d × h] down; biases have one row. A constant
    expert has mix [2 × d] and constant [1 × d]; identity and zero have none."""

    def __init__(self, d_model, width, kind, bias=False, device=None, dtype=None):
        super().__init__()
        self.kind, self.width = kind, width
        self._names = [name for name, _ in ops.expert_shapes(d_model, kind, bias)]
        for name, shape in ops.expert_shapes(d_model, kind, bias):
            shape = [width if size is None else size for size in shape]
            self.register_parameter(name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))

    def tensors(self):
        """The weights in the order in which the operators take them."""
        own = self._parameters  # quicker than attributes, which hold what parametrisations make
        return [own[name] if name in own else getattr(self, name) for name in self._names]

    def extra_repr(self):
        return f"{self.kind}, width={self.width}"


class _AnyExperts:
    """What experts of all forms do alike, from kinds, widths, bias, groups_of(kinds) and tensors_of(ids)."""

    @property
    def kind(self):
        """The kind of all experts; Error where they have several."""
        if len(set(self.kinds)) != 1:
            raise Error(f"the experts are of several kinds ({', '.join(sorted(set(self.kinds)))}): this is for those of one kind")
        return self.kinds[0]

    @property
    def parameters_per_expert(self):
        """[N] weights and biases of each expert."""
        return [ops.parameters_of(self.d_model, h, kind, self.bias) for h, kind in zip(self.widths, self.kinds)]

    def forward(self, x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """x [T, d], ids [T, choices] (those that are no expert are skipped), weights [T, choices], or [T, N] where that is
        another shape → y in the type of x."""
        ids, weights = ops.ids_of(ids), ops.weights_of_choices(ids, weights, len(self.widths))
        if len(self._groups) == 1:
            return self._run(*self._groups[0], x, ids, weights).to(x.dtype)
        total = 0
        for kind, own in self._groups:
            total = total + self._run(kind, own, x, ops.renumbered(ids, own, len(self.widths)), weights).to(ops.sum_type(x))
        return total.to(x.dtype)

    def _run(self, kind, own, x, ids, weights):
        tensors = self.tensors_of(own)
        if kind == ops.WITHOUT_NEURONS:
            return ops.run_without_neurons(x, ids, weights, tensors, [self.kinds[e] for e in own])
        return ops.run_experts(x.to(tensors[0].dtype), ids, weights, tensors, [self.widths[e] for e in own], kind, self.bias)

    def tensors(self):
        """The weights of all experts, expert after expert."""
        return self.tensors_of(range(len(self.widths)))

    def packed(self, format):
        """The same experts with packed weights, for inference: PackedExperts."""
        return PackedExperts(self, format)

    def extra_repr(self):
        return f"d_model={self.d_model}, {', '.join(dict.fromkeys(self.kinds))}, widths={self.widths}"


class Experts(_AnyExperts, nn.ModuleList):
    """Experts of any widths: y_t = Σ_i weights[t, i] · expert_{ids[t, i]}(x_t). It stands where a model of
    transformers has its experts, too (hmoe.prune.unstack).

    kind   of all experts, or a list with that of each: "glu.ACTIVATION", "mlp.ACTIVATION"; without neurons, of width 0,
           "identity" (x), "zero" (0), "constant" (a x + b v with (a, b) = softmax(W x))

    Where the kinds differ, a token's sum runs over kinds, and in each over its experts.
    """

    def __init__(self, d_model, widths, kind="glu.silu", bias=False, device=None, dtype=None):
        self.d_model, self.widths = int(d_model), ops.check_widths(widths)
        self.kinds, self.bias = ops.check_kinds(kind, self.d_model, self.widths), bool(bias)
        self._groups = ops.groups_of(self.kinds)
        super().__init__(Expert(self.d_model, width, own, self.bias, device, dtype)
                         for width, own in zip(self.widths, self.kinds))  # fmt: skip
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, output_gain=1.0):
        """Normal values: 1/√d for gate, up and mix, output_gain/√h for down, output_gain for constants, biases 0
        (hmoe::initialization)."""
        for expert in self:
            for name, values in expert.named_parameters():
                if name.endswith("_bias"):
                    values.zero_()
                elif values.numel():
                    of_output = {"down": output_gain / math.sqrt(max(expert.width, 1)), "constant": output_gain}
                    values.normal_(0, of_output.get(name, self.d_model**-0.5))

    def tensors_of(self, ids):
        """The weights of some experts, expert after expert."""
        return [tensor for e in ids for tensor in self[e].tensors()]


class NestedExperts(_AnyExperts, nn.Module):
    """The first widths[e] neurons of each expert of others, on their memory (hmoe.prune.nested). Gradients go to the
    parameters of those, `whole`."""

    def __init__(self, whole, widths):
        super().__init__()
        self.d_model, self.widths = whole.d_model, ops.check_widths(widths)
        self.kinds, self._groups, self.bias, self.whole = list(whole.kinds), whole._groups, whole.bias, whole
        if len(self.widths) != len(whole.widths):
            raise Error(f"{len(self.widths)} widths for {len(whole.widths)} experts")
        for e, (own, most) in enumerate(zip(self.widths, whole.widths)):
            if own > most:
                raise Error(f"expert {e} shall run at width {own}, it has {most}")

    def tensors_of(self, ids):
        """The part of the weights of some experts, expert after expert."""
        return [ops.first_neurons(tensor, name, self.widths[e]) for e in ids
                for (name, _), tensor in zip(ops.expert_shapes(self.d_model, self.kinds[e], self.bias),
                                             self.whole.tensors_of([e]))]  # fmt: skip


class PackedExperts(_AnyExperts, nn.Module):
    """Experts whose weights are copies in the order in which the kernels read them, for inference: in a format, "f32",
    "bf16", "q8_channel" or "q4" (docs/simd.md); of kinds without neurons as they were. It has no parameters; copies of
    it share the weights."""

    def __init__(self, experts, format):
        super().__init__()
        self.d_model, self.widths = experts.d_model, list(experts.widths)
        self.kinds, self._groups, self.bias, self.format = list(experts.kinds), experts._groups, experts.bias, format
        self._held = {}
        for kind, own in self._groups:
            tensors = [t.detach() for t in experts.tensors_of(own)]
            if kind == ops.WITHOUT_NEURONS:
                self._held[kind] = ops.Kept([t.clone() for t in tensors])
            else:
                self._held[kind] = ops.PackedWeights(tensors, [self.widths[e] for e in own], kind, self.bias, self.d_model, format)

    @property
    def bytes(self):
        """Of the weights."""
        return sum(held.bytes for held in self._held.values())

    def packed(self, format):
        raise Error("these experts are packed: pack those that they were made of")

    def tensors_of(self, ids):
        raise Error("packed experts have no tensors: take those that they were made of")

    def _run(self, kind, own, x, ids, weights):
        held = self._held[kind]
        if kind == ops.WITHOUT_NEURONS:
            return ops.run_without_neurons(x, ids, weights, held.tensors, [self.kinds[e] for e in own])
        return ops.run_packed(x.to(held.dtype), ids, weights, held)

    def extra_repr(self):
        return f"{super().extra_repr()}, {self.format}"


class Router(nn.Module):
    """logits = weight · x, scores of them, a selection among the scores, weights of the chosen experts.

    select     "top_k" (k), "top_p" (p) or "threshold" (minimum)
    score      "softmax", "sigmoid", "sqrt_softplus" or "relu"
    weighting  "renormalized", "raw", "softmax_over_selected", "sigmoid_of_logit" or "equal_weights"

    With k = 1 "renormalized" gives every token the weight 1 and the router no gradient: take "raw".
    shared_gate   that many rows v of a gate of shared experts, σ(⟨v, x⟩), which an MoE uses
    """

    def __init__(self, d_model, experts, select="top_p", k=None, p=None, minimum=None, score="softmax",
                 weighting="renormalized", device=None, dtype=None, shared_gate=0):  # fmt: skip
        super().__init__()
        if select not in SELECTIONS:
            raise Error(f"router {select!r}: known are {', '.join(SELECTIONS)}, or give a callable")
        given = {"k": k, "p": p, "minimum": minimum}
        name = SELECTIONS[select]
        if given[name] is None:
            raise Error(f'router "{select}" needs {name}')
        surplus = [other for other, value in given.items() if value is not None and other != name]
        if surplus:
            raise Error(f'router "{select}" takes {name}, not {", ".join(surplus)}')
        self.select, self.parameter, self.score, self.weighting = select, float(given[name]), score, weighting
        self.choices = _core.RouterPolicies(d_model, experts, score, select, self.parameter, weighting).choices
        self.weight = nn.Parameter(torch.empty(experts, d_model, device=device, dtype=dtype))
        if shared_gate:
            self.shared_gate = nn.Parameter(torch.empty(shared_gate, d_model, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, stddev=0.02):
        """Small values, so that routing starts near uniform."""
        for values in self.parameters():
            values.normal_(0, stddev)

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Routing:
        """x [T, d], mask [T]: False where a token is padding, which gets no expert."""
        kind = ops.sum_type(x)
        mask = None if mask is None else mask.to(torch.bool)
        logits, probabilities, ids, weights = ops.route(
            x.to(kind), self.weight.to(kind), mask, self.choices, self.score, self.select, self.parameter, self.weighting)
        return Routing(ids, weights, logits, probabilities)

    def shared_weights(self, x: Tensor) -> Tensor:
        """[T, shared experts] σ(⟨v, x⟩)."""
        kind, count = ops.sum_type(x), self.shared_gate.shape[0]
        return ops.route(x.to(kind), self.shared_gate.to(kind), None, count, "sigmoid", "top_k", count, "raw")[3]

    def extra_repr(self):
        return f"{self.select}, {SELECTIONS[self.select]}={self.parameter:g}, {self.score}, {self.weighting}"


class MoE(nn.Module):
    """y_t = Σ_i weight(t, i) · expert_{id(t, i)}(x_t), experts of any widths.

    widths      hidden width of each expert, 0 or more; hmoe.widths has the strategies of the paper
    router      "top_k", "top_p" or "threshold" with the arguments of Router, or any callable x [T, d] → (ids, weights)
                or Routing; a module among them is registered
    activation  "silu", "gelu", "gelu_tanh", "relu", "squared_relu", "linear", or "gpt_oss" of a GLU
    gated       GLUs, down(act(gate x) ⊙ up x), or MLPs, down(act(up x))
    kinds       in place of these two the kind of all routed experts, or a list with that of each: see Experts
    shared      widths of further experts, the last ones, that every token has with the weight 1; with
                shared_gate=True σ(⟨v, x⟩) of a parameter router.shared_gate
    losses      auxiliary losses, name → coefficient: load_balance, parameter_penalty, router_entropy, z, importance

    The state dict has the names of docs/checkpoints.md: experts.ID.gate, …, router.weight.
    """

    def __init__(self, d_model, widths, router="top_p", *, k=None, p=None, minimum=None, score="softmax",
                 weighting="renormalized", activation="silu", gated=True, bias=False, losses=None, kinds=None, shared=(),
                 shared_gate=False, device=None, dtype=None):  # fmt: skip
        super().__init__()
        self.losses = dict(losses or {})
        unknown = [name for name in self.losses if name not in LOSSES]
        if unknown:
            raise Error(f"no auxiliary loss named {', '.join(map(repr, unknown))}: known are {', '.join(LOSSES)}")
        place = {"device": device, "dtype": dtype}
        widths, shared = ops.check_widths(widths), ops.check_widths(shared)
        plain = f"{'glu' if gated else 'mlp'}.{activation}"
        if shared or kinds is not None:
            kinds = ops.check_kinds(plain if kinds is None else kinds, int(d_model), widths)
            plain = kinds + [plain] * len(shared)
        self.experts = Experts(d_model, widths + shared, plain, bias, **place)
        self.routed = len(widths)
        gates = len(shared) if shared_gate else 0
        if shared_gate and (callable(router) or not shared):
            raise Error("shared_gate is for shared experts beside a router of hmoe's own")
        if callable(router):
            self.router = router
        else:
            self.router = Router(d_model, self.routed, router, k, p, minimum, score, weighting, shared_gate=gates, **place)

    @property
    def d_model(self):
        return self.experts.d_model

    @property
    def widths(self):
        return self.experts.widths

    @property
    def kind(self):
        return self.experts.kind

    @property
    def kinds(self):
        return self.experts.kinds

    @property
    def bias(self):
        return self.experts.bias

    @torch.no_grad()
    def reset_parameters(self, output_gain=1.0, router_stddev=0.02):
        """Draws all weights anew, as hmoe::initialization says."""
        self.experts.reset_parameters(output_gain)
        if isinstance(self.router, Router):
            self.router.reset_parameters(router_stddev)

    def packed(self, format):
        """The layer with packed experts, for inference (PackedExperts); the router is this one's."""
        return self._with_experts(self.experts.packed(format))

    def _with_experts(self, experts):
        result = copy.copy(self)
        for name, value in vars(self).items():  # hooks, buffers and losses of its own
            if isinstance(value, (dict, set)):
                vars(result)[name] = copy.copy(value)
        result.experts = experts
        return result

    def route(self, x, mask=None):
        """The router's answer for x [T, d]."""
        if isinstance(self.router, Router):
            return self.router(x, mask)
        answer = self.router(x)
        routing = answer if isinstance(answer, Routing) else Routing(*answer)
        if mask is not None:
            routing = routing._replace(ids=routing.ids.masked_fill(~mask.unsqueeze(1), -1))
        return routing

    def choices(self, x, routing, mask=None):
        """(ids, weights), those of a routing and of the shared experts."""
        count = len(self.widths) - self.routed
        if count == 0:
            return routing.ids, routing.weights
        weights = ops.weights_of_choices(routing.ids, routing.weights, self.routed)
        own = torch.arange(self.routed, len(self.widths), device=x.device).expand(x.shape[0], count)
        if mask is not None:
            own = own.masked_fill(~mask.unsqueeze(1), -1)
        routed = ops.ids_of(routing.ids)
        routed = routed.masked_fill(routed >= self.routed, -1)  # no id of a router's is a shared expert's
        if getattr(self.router, "shared_gate", None) is None:
            shared = weights.new_ones(x.shape[0], count)
        else:
            shared = self.router.shared_weights(x).to(weights.dtype)
        return torch.cat([routed, own], 1), torch.cat([weights, shared], 1)

    def forward(self, x: Tensor, mask: Optional[Tensor] = None, return_routed: bool = False):
        """x [..., d] → y of the same shape and type, or (y, Routed). mask [...]: False where a token is padding: it gets
        y = 0, no expert and no share in losses and counts."""
        if x.shape[-1] != self.d_model:
            raise Error(f"a token has {x.shape[-1]} values, the layer's d_model is {self.d_model}")
        tokens = x.reshape(-1, self.d_model)
        if mask is not None:
            if mask.shape != x.shape[:-1]:
                raise Error(f"the mask is {tuple(mask.shape)}, needed is {tuple(x.shape[:-1])}")
            mask = mask.reshape(-1).to(torch.bool)
        routing = self.route(tokens, mask)
        ids, weights = self.choices(tokens, routing, mask)
        y = self.experts(tokens, ids, weights).reshape(x.shape)
        return (y, self._routed(routing, ids, mask)) if return_routed else y

    def _routed(self, routing, ids, mask):
        count, tokens = len(self.widths), ids.shape[0]
        used = (ids >= 0) & (ids < count)
        per_expert = used.new_zeros(count + 1, dtype=torch.int64)
        per_expert = per_expert.scatter_add(0, ids.where(used, count).reshape(-1), used.reshape(-1).long())[:count]
        valid = (mask.sum() if mask is not None else per_expert.new_full((), tokens)).clamp(min=1)
        values, total = {}, routing.weights.new_zeros(())
        if self.losses and (routing.logits is None or routing.probabilities is None):
            raise Error(f"auxiliary losses ({', '.join(self.losses)}) need the router's logits and probabilities: "
                             "let it return Routing(ids, weights, logits, probabilities)")  # fmt: skip
        for name, coefficient in self.losses.items():
            values[name] = ops.auxiliary_loss(name, routing, mask, self.widths[: self.routed])
            total = total + coefficient * values[name]
        each = per_expert.new_tensor([self.experts.parameters_per_expert, self.widths], dtype=torch.float64)
        mean = (each * per_expert).sum(1) / valid
        return Routed(values, total, per_expert, mean[0], mean[1], routing)

    def extra_repr(self):
        return f"losses={self.losses}"


def _described(layer):
    """The tensors of a layer (or of experts alone) as its file has them; those on which it works."""
    count, tensors, kept = len(layer.widths), [], []
    if not isinstance(getattr(layer, "experts", layer), Experts):
        raise Error("packed and nested layers have no file of their own: save the layer that they were made of, or cut()")
    prefix = "experts." if isinstance(layer, Experts) else ""
    for name, values in layer.state_dict(keep_vars=True, prefix=prefix).items():
        values = values.detach()
        if values.dim() != 2 or not values.is_floating_point():
            raise Error(f"{name} is {tuple(values.shape)} of {values.dtype}: a file of experts holds matrices")
        parts = name.split(".")
        own = len(parts) == 3 and parts[0] == "experts"
        tensors.append((parts[2] if own else name, int(parts[1]) if own else count, values))
    wide = any(values.dtype == torch.float64 for _, _, values in tensors)
    described = []
    for name, expert, values in tensors:
        values = values.to(torch.float64 if wide else torch.float32).contiguous()
        kept.append(values)
        described.append((name, expert, values.data_ptr(), *values.shape))
    return wide, described, tensors, kept


def save(path, layers, *, what="trained", by="", source=""):
    """Writes layers, prefix → MoE or Experts (or a single one), as a safetensors file of unequal experts (docs/checkpoints.md).
    float16 and bfloat16 are written as float32. `what`, `by`, `source`: where the sizes come from."""
    layers = {"": layers} if isinstance(layers, nn.Module) else layers
    described, kept = [], []
    for prefix, layer in layers.items():
        wide, tensors, _, values = _described(layer)
        kept.append(values)
        described.append((prefix, wide, layer.d_model, layer.kinds, layer.widths, tensors))
    _core.save_layers(str(path), described, what, by, source)


def read_manifest(path):
    """What a file of unequal experts says of its layers: a list of dictionaries (docs/checkpoints.md)."""
    return json.loads(_core.read_manifest(str(path)))["layers"]


@torch.no_grad()
def load(path, layer, prefix=""):
    """Reads the layer with that prefix into an MoE, or Experts, of the same numbers, kinds and widths of experts."""
    wide, described, tensors, values = _described(layer)
    _core.load_layer(str(path), prefix, (prefix, wide, layer.d_model, layer.kinds, layer.widths, described))
    for (_, _, own), read in zip(tensors, values):
        if own.data_ptr() != read.data_ptr():
            own.copy_(read)
    return layer
