# SPDX-License-Identifier: MIT
"""The custom operators of hmoe.nn: experts as lists of tensors, routers, auxiliary losses."""

import functools
import itertools
import weakref
from typing import List, Optional  # older versions of torch know no other lists in schemas

import torch
from torch import Tensor

from . import _core
from ._core import Error


#: What experts of hmoe.nn have between their projections, in the words of docs/checkpoints.md.
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu", "squared_relu", "linear", "gpt_oss")
#: Kinds of experts that have no neurons; such experts of a layer are run together.
SIMPLE_KINDS = ("identity", "zero", "constant")
WITHOUT_NEURONS = "without neurons"


def _address(tensor):
    return 0 if tensor is None else tensor.data_ptr()


def _lanes(kind):
    return 2 if kind.startswith("glu.") else 1


def expert_shapes(d_model, kind, biased):
    """(name, shape) of the tensors of an expert, in the order in which operators take them; None: its width."""
    if kind in SIMPLE_KINDS:
        return [("mix", (2, d_model)), ("constant", (1, d_model))] if kind == "constant" else []
    lanes = ("gate", "up") if kind.startswith("glu.") else ("up",)
    shapes = [(name, (None, d_model)) for name in lanes] + [("down", (d_model, None))]
    if biased:
        shapes += [(f"{name}_bias", (1, None)) for name in lanes] + [("down_bias", (1, d_model))]
    return shapes


def sum_type(tensor):
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _type_name(tensor):
    return str(tensor.dtype).removeprefix("torch.")


def parameters_of(d_model, width, kind, biased):
    """Weights and biases of an expert."""
    return sum((width if rows is None else rows) * (width if cols is None else cols)
               for _, (rows, cols) in expert_shapes(d_model, kind, biased))  # fmt: skip


def check_kinds(kinds, d_model, widths):
    """A list of the kinds of experts, from one for all or a list."""
    kinds = [kinds] * len(widths) if isinstance(kinds, str) else list(kinds)
    if len(kinds) != len(widths):
        raise Error(f"{len(kinds)} kinds for {len(widths)} experts")
    for e, (kind, width) in enumerate(zip(kinds, widths)):
        if kind in SIMPLE_KINDS and width != 0:
            raise Error(f"expert {e} is of the kind {kind}, which has no neurons: its width is {width}, needed is 0")
        if kind not in SIMPLE_KINDS and kind.partition(".")[0] not in ("glu", "mlp"):
            raise Error(f"no kind of experts named {kind!r}: known are glu.ACTIVATION, mlp.ACTIVATION, {', '.join(SIMPLE_KINDS)}")
    for kind in {kind for kind in kinds if kind not in SIMPLE_KINDS} or {"glu.silu"}:
        _core.check_experts(kind, d_model, widths)
    return kinds


def groups_of(kinds):
    """(kind, ids of its experts) for each kind that has neurons; those without any come last, together."""
    groups = {kind: [] for kind in dict.fromkeys(kinds) if kind not in SIMPLE_KINDS}
    groups[WITHOUT_NEURONS] = []
    for e, kind in enumerate(kinds):
        groups[WITHOUT_NEURONS if kind in SIMPLE_KINDS else kind].append(e)
    return [(kind, own) for kind, own in groups.items() if own]


def renumbered(ids, own, count):
    """Ids as places in a list of ids; −1 for those that are not in it."""
    places = [-1] * (count + 1)  # the last one is that of −1
    for place, e in enumerate(own):
        places[e] = place
    return torch.tensor(places, device=ids.device)[ids.clamp(-1, count)]


def first_neurons(tensor, name, width):
    """The part of an expert's tensor that belongs to its first neurons."""
    if name in ("gate", "up"):
        return tensor[:width]
    return tensor[:, :width] if name in ("down", "gate_bias", "up_bias") else tensor


def make_bank(tensors, widths, kind, biased, d_model):
    """Experts where the tensors are. The tensors must outlive them."""
    lanes, per_expert = _lanes(kind), len(tensors) // len(widths)
    return _core.TensorBank(kind, _type_name(tensors[0]), d_model, widths, biased,
                            [tensor.data_ptr() for tensor in tensors],
                            [tensor.stride(0) for tensor in tensors[lanes::per_expert]])  # fmt: skip


def _in_rows(tensors, kind, biased):
    """Tensors of experts as the kernels take them: contiguous, but that rows of down may lie apart."""
    lanes, per_expert = _lanes(kind), (_lanes(kind) + 1) * (2 if biased else 1)

    def fits(place, tensor):
        return tensor.is_contiguous() or (place % per_expert == lanes and tensor.stride(1) == 1 and tensor.stride(0) > 1)

    return [tensor if fits(place, tensor) else tensor.contiguous() for place, tensor in enumerate(tensors)]


def _check(x, ids, weights, tensors, widths, kind, biased):
    per_expert = (_lanes(kind) + 1) * (2 if biased else 1)
    if len(tensors) != per_expert * len(widths):
        raise Error(f"{len(tensors)} tensors, needed are {per_expert} for each of {len(widths)} experts")
    if x.dim() != 2:
        raise Error(f"x is {tuple(x.shape)}: needed is [tokens, d_model]")
    if ids.dim() != 2 or ids.shape != weights.shape or ids.shape[0] != x.shape[0]:
        raise Error(f"ids are {tuple(ids.shape)} and weights {tuple(weights.shape)} for {x.shape[0]} tokens: needed "
                         "is [tokens, choices] for both")  # fmt: skip
    if ids.dtype != torch.int64 or weights.dtype != sum_type(x):
        raise Error(f"ids are {ids.dtype} and weights {weights.dtype}, needed are torch.int64 and {sum_type(x)}")
    names, shapes = _expected(x.shape[1], kind, biased, tuple(widths))
    if [tensor.shape for tensor in tensors] == shapes and all(tensor.dtype == x.dtype for tensor in tensors):
        return
    for place, (tensor, shape) in enumerate(zip(tensors, shapes)):
        if tensor.dtype != x.dtype or tensor.shape != shape:
            name, expert = names[place % per_expert], place // per_expert
            raise Error(f"{name} of expert {expert} is {tuple(tensor.shape)} of {tensor.dtype}, needed is {tuple(shape)} of "
                        f"{x.dtype}, the type of x")  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _expected(d_model, kind, biased, widths):
    """Names of the tensors of an expert, and the shapes of those of all experts."""
    form = expert_shapes(d_model, kind, biased)
    shapes = [torch.Size(h if size is None else size for size in shape) for h in widths for _, shape in form]
    return [name for name, _ in form], shapes


def _contiguous(*tensors):
    return [tensor if tensor.is_contiguous() else tensor.contiguous() for tensor in tensors]


# Experts.


@torch.library.custom_op("hmoe::nn_experts", mutates_args=(), device_types="cpu")
def nn_experts(x: Tensor, ids: Tensor, weights: Tensor, tensors: List[Tensor], widths: List[int], kind: str,
               biased: bool) -> Tensor:  # fmt: skip
    _check(x, ids, weights, tensors, widths, kind, biased)
    x, ids, weights, *tensors = *_contiguous(x, ids, weights), *_in_rows(tensors, kind, biased)
    y = torch.empty_like(x)
    _core.run_bank(make_bank(tensors, widths, kind, biased, x.shape[1]), *ids.shape, ids.data_ptr(), weights.data_ptr(),
                   x.data_ptr(), y.data_ptr(), 0, 0, False, torch.get_num_threads())  # fmt: skip
    return y


@nn_experts.register_fake
def _(x, ids, weights, tensors, widths, kind, biased):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _most_saved(tokens, choices, widths, kind):
    """Hidden values that a pass keeps at most: those of the widest experts."""
    return tokens * (_lanes(kind) + 1) * sum(sorted(widths)[len(widths) - min(int(choices), len(widths)):])


@torch.library.custom_op("hmoe::nn_experts_recorded", mutates_args=(), device_types="cpu")
def nn_experts_recorded(x: Tensor, ids: Tensor, weights: Tensor, tensors: List[Tensor], widths: List[int], kind: str,
                        biased: bool, bounded: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The output, and what backward needs: hidden values and outputs of experts. `bounded`: their sizes are the largest
    that any routing needs, so that a graph knows them; else they are exact."""
    _check(x, ids, weights, tensors, widths, kind, biased)
    x, ids, weights, *tensors = *_contiguous(x, ids, weights), *_in_rows(tensors, kind, biased)
    (tokens, choices), count = ids.shape, len(widths)
    if bounded:
        values, rows = _most_saved(tokens, choices, widths, kind), tokens * choices
    else:
        chosen = torch.bincount(ids.clamp(-1, count).add_(1).reshape(-1), minlength=count + 2)[1 : count + 1]
        values = (_lanes(kind) + 1) * int((chosen * torch.tensor(widths, device=x.device)).sum())
        rows = int(chosen.sum())
    y = torch.empty_like(x)
    saved, outputs = x.new_empty(values, dtype=sum_type(x)), x.new_empty((rows, x.shape[1]), dtype=sum_type(x))
    _core.run_bank(make_bank(tensors, widths, kind, biased, x.shape[1]), tokens, choices, ids.data_ptr(), weights.data_ptr(),
                   x.data_ptr(), y.data_ptr(), saved.data_ptr(), outputs.data_ptr(), True,
                   torch.get_num_threads())  # fmt: skip
    return y, saved, outputs


@nn_experts_recorded.register_fake
def _(x, ids, weights, tensors, widths, kind, biased, bounded):
    tokens, choices = ids.shape
    if bounded:
        values, rows = _most_saved(tokens, choices, widths, kind), tokens * choices
    else:
        context = torch.library.get_ctx()
        values, rows = context.new_dynamic_size(), context.new_dynamic_size()
    return (torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(values, dtype=sum_type(x)),
            x.new_empty((rows, x.shape[1]), dtype=sum_type(x)))  # fmt: skip


@torch.library.custom_op("hmoe::nn_experts_backward", mutates_args=(), device_types="cpu")
def nn_experts_backward(dy: Tensor, x: Tensor, ids: Tensor, weights: Tensor, saved: Tensor, outputs: Tensor,
                        tensors: List[Tensor], widths: List[int], kind: str, biased: bool,
                        wanted: List[bool]) -> List[Tensor]:  # fmt: skip
    """Gradients of x, weights and tensors; empty ones of those that are not wanted."""
    dy, x, ids, weights, *tensors = *_contiguous(dy, x, ids, weights), *_in_rows(tensors, kind, biased)
    gradients = _empty_gradients((x, weights, *tensors), wanted)
    dx, d_weights, *of_experts = [g.data_ptr() if w else 0 for g, w in zip(gradients, wanted)]
    sums = _core.TensorBank(kind, _type_name(x), x.shape[1], widths, biased, of_experts)
    _core.run_bank_backward(make_bank(tensors, widths, kind, biased, x.shape[1]), *ids.shape, ids.data_ptr(),
                            weights.data_ptr(), x.data_ptr(), dy.data_ptr(), saved.data_ptr(), outputs.data_ptr(),
                            dx, d_weights, sums, torch.get_num_threads())  # fmt: skip
    return gradients


def _empty_gradients(tensors, wanted):
    return [torch.empty_like(t, memory_format=torch.contiguous_format) if w else t.new_empty(0)
            for t, w in zip(tensors, wanted)]  # fmt: skip


@nn_experts_backward.register_fake
def _(dy, x, ids, weights, saved, outputs, tensors, widths, kind, biased, wanted):
    return _empty_gradients((x, weights, *tensors), wanted)


def _keep_for_experts(ctx, inputs, output):
    x, ids, weights, tensors, ctx.widths, ctx.kind, ctx.biased, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, ids, weights, *output[1:], *tensors)


def _experts_gradients(ctx, dy, d_saved, d_outputs):
    x, ids, weights, saved, outputs, *tensors = ctx.saved_tensors
    if dy is None:
        return None, None, None, [None] * len(tensors), None, None, None, None
    of_x, _, of_weights, of_tensors, *_ = ctx.needs_input_grad
    wanted = [of_x, of_weights, *of_tensors]
    gradients = torch.ops.hmoe.nn_experts_backward(
        dy.to(x.dtype), x, ids, weights, saved, outputs, tensors, ctx.widths, ctx.kind, ctx.biased, wanted)
    dx, d_weights, *gradients = [g if w else None for g, w in zip(gradients, wanted)]
    return dx, None, d_weights, gradients, None, None, None, None


nn_experts_recorded.register_autograd(_experts_gradients, setup_context=_keep_for_experts)


def _require_cpu(x):
    if x.device.type != "cpu":
        raise Error(f"the tokens are on {x.device}: hmoe.nn computes on the CPU: move the layer and its input there")


def weights_of_choices(ids, weights, experts):
    """[T, choices] from these, or from a weight for each expert, [T, experts], as some models of transformers give. Where a
    token has as many choices as there are experts, both have one shape: then they are those of choices."""
    if weights.shape == ids.shape:
        return weights
    if ids.dim() != 2 or weights.shape != (ids.shape[0], experts):
        raise Error(f"ids are {tuple(ids.shape)} and weights {tuple(weights.shape)}: needed are [tokens, choices] for both, or "
                    f"weights of [tokens, {experts} experts]")  # fmt: skip
    return weights.gather(1, ids.to(torch.int64).clamp(0, experts - 1))


def ids_of(ids):
    """int64, from any type of integers."""
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise Error(f"ids are {ids.dtype}: needed are integers")
    return ids.to(torch.int64)


def check_widths(widths):
    """A list of them."""
    widths = [int(width) for width in widths]
    if min(widths, default=0) < 0:
        raise Error(f"an expert has the width {min(widths)}: needed is 0 or more")
    return widths


def run_experts(x, ids, weights, tensors, widths, kind, biased):
    """y_t = Σ_i weights(t, i) · expert_{ids(t, i)}(x_t), with gradients to x, weights and tensors."""
    _require_cpu(x)
    ids, weights = ids_of(ids), weights.to(sum_type(x))
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, weights, *tensors)):
        bounded = torch.compiler.is_compiling()
        return torch.ops.hmoe.nn_experts_recorded(x, ids, weights, tensors, widths, kind, biased, bounded)[0]
    return torch.ops.hmoe.nn_experts(x, ids, weights, tensors, widths, kind, biased)


# Experts without neurons.


@torch.library.custom_op("hmoe::nn_simple", mutates_args=(), device_types="cpu")
def nn_simple(x: Tensor, ids: Tensor, weights: Tensor, tensors: List[Tensor], kinds: str) -> Tensor:
    """`kinds`: with spaces between them; `tensors`: mix and constant of each constant expert."""
    d_model = x.shape[1]
    if any(t.numel() != (1 if i % 2 else 2) * d_model or t.dtype != x.dtype for i, t in enumerate(tensors)):
        raise Error(f"constant experts have mix [2, {d_model}] and constant [1, {d_model}] of {x.dtype}")
    if ids.dim() != 2 or ids.shape != weights.shape or ids.shape[0] != x.shape[0]:
        raise Error(f"ids are {tuple(ids.shape)} and weights {tuple(weights.shape)} for {x.shape[0]} tokens: needed "
                    "is [tokens, choices] for both")  # fmt: skip
    if ids.dtype != torch.int64 or x.dtype != sum_type(x) or weights.dtype != x.dtype:
        raise Error(f"x is {x.dtype}, ids are {ids.dtype} and weights {weights.dtype}: needed are float32 or float64, int64, and "
                    "the type of x")  # fmt: skip
    x, ids, weights, *tensors = _contiguous(x, ids, weights, *tensors)
    y = torch.empty_like(x)
    _core.run_simple_experts(kinds.split(), [t.data_ptr() for t in tensors], x.dtype == torch.float64, d_model, *ids.shape,
                             ids.data_ptr(), weights.data_ptr(), x.data_ptr(), y.data_ptr())  # fmt: skip
    return y


@nn_simple.register_fake
def _(x, ids, weights, tensors, kinds):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("hmoe::nn_simple_backward", mutates_args=(), device_types="cpu")
def nn_simple_backward(dy: Tensor, x: Tensor, ids: Tensor, weights: Tensor, tensors: List[Tensor],
                       kinds: str) -> List[Tensor]:  # fmt: skip
    dy, x, ids, weights, *tensors = _contiguous(dy, x, ids, weights, *tensors)
    gradients = [torch.empty_like(t) for t in (x, weights, *tensors)]
    dx, d_weights, *of_tensors = [g.data_ptr() for g in gradients]
    _core.run_simple_experts_backward(kinds.split(), [t.data_ptr() for t in tensors], x.dtype == torch.float64, x.shape[1],
                                      *ids.shape, ids.data_ptr(), weights.data_ptr(), x.data_ptr(), dy.data_ptr(), dx,
                                      d_weights, of_tensors)  # fmt: skip
    return gradients


@nn_simple_backward.register_fake
def _(dy, x, ids, weights, tensors, kinds):
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, weights, *tensors)]


def _keep_for_simple(ctx, inputs, output):
    x, ids, weights, tensors, ctx.kinds = inputs
    ctx.save_for_backward(x, ids, weights, *tensors)


def _simple_gradients(ctx, dy):
    x, ids, weights, *tensors = ctx.saved_tensors
    dx, d_weights, *gradients = torch.ops.hmoe.nn_simple_backward(dy, x, ids, weights, tensors, ctx.kinds)
    return dx, None, d_weights, gradients, None


nn_simple.register_autograd(_simple_gradients, setup_context=_keep_for_simple)


def run_without_neurons(x, ids, weights, tensors, kinds):
    """y_t = Σ_i weights(t, i) · expert_{ids(t, i)}(x_t) in the type of sums."""
    _require_cpu(x)
    kind = sum_type(x)
    return torch.ops.hmoe.nn_simple(x.to(kind), ids, weights.to(kind), [t.to(kind) for t in tensors], " ".join(kinds))


# Packed experts.


class Kept:
    """Tensors of packed experts. Copies of these share them: they are the same object."""

    def __init__(self, tensors):
        self.tensors, self.bytes = tensors, sum(t.nbytes for t in tensors)

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        raise Error("packed weights are not saved: save the layer that they were made of, and pack it again")


class PackedWeights(Kept):
    """Weights of experts of one kind in the order in which the kernels read them."""

    def __init__(self, tensors, widths, kind, biased, d_model, format):
        _require_cpu(tensors[0])
        tensors = _in_rows(tensors, kind, biased)
        bank = _core.PackedBank(make_bank(tensors, widths, kind, biased, d_model), format)
        self.bytes, self.dtype, self.key = bank.bytes, tensors[0].dtype, next(_keys)
        _packed[self.key] = bank
        weakref.finalize(self, _packed.pop, self.key, None)


_keys, _packed = itertools.count(), {}


@torch.library.custom_op("hmoe::nn_packed", mutates_args=(), device_types="cpu")
def nn_packed(x: Tensor, ids: Tensor, weights: Tensor, key: int) -> Tensor:
    x, ids, weights = (t.detach() for t in _contiguous(x, ids, weights))
    y = torch.empty_like(x)
    _packed[key].forward(x, ids, weights, y, threads=torch.get_num_threads())
    return y


@nn_packed.register_fake
def _(x, ids, weights, key):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _no_gradients(ctx, dy):
    raise Error("packed weights are for inference: train the layer that they were made of")


nn_packed.register_autograd(_no_gradients)


def run_packed(x, ids, weights, held):
    _require_cpu(x)
    return torch.ops.hmoe.nn_packed(x, ids, weights.to(sum_type(x)), held.key)


# Routers.


def _check_mask(mask, tokens):
    if mask is not None and (mask.dtype != torch.bool or mask.shape != (tokens,)):
        raise Error(f"the mask is {tuple(mask.shape)} of {mask.dtype}, needed is {(tokens,)} of torch.bool")


def _check_router(x, weight, mask):
    if x.dim() != 2 or weight.dim() != 2 or x.shape[1] != weight.shape[1]:
        raise Error(f"the router's weight is {tuple(weight.shape)} and x {tuple(x.shape)}: needed are [experts, d_model] and "
                    "[tokens, d_model]")  # fmt: skip
    if x.dtype != weight.dtype or x.dtype != sum_type(x):
        raise Error(f"the router's weight is {weight.dtype} and x {x.dtype}: needed is float32 or float64 for both")
    _check_mask(mask, x.shape[0])


@torch.library.custom_op("hmoe::nn_route", mutates_args=(), device_types="cpu")
def nn_route(x: Tensor, weight: Tensor, mask: Optional[Tensor], choices: int, score: str, select: str, parameter: float,
             weighting: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """logits, probabilities [T, N], ids and weights [T, choices]."""
    _check_router(x, weight, mask)
    x, weight = _contiguous(x, weight)
    mask = None if mask is None else mask.contiguous()
    (tokens, d_model), experts = x.shape, weight.shape[0]
    logits, probabilities = x.new_empty(tokens, experts), x.new_empty(tokens, experts)
    ids, weights = x.new_empty(tokens, choices, dtype=torch.int64), x.new_empty(tokens, choices)
    policies = _core.RouterPolicies(d_model, experts, score, select, parameter, weighting)
    if policies.choices != choices:
        raise Error(f"{select} of {parameter:g} makes {policies.choices} choices for a token, not {choices}")
    _core.run_router(policies, x.dtype == torch.float64, weight.data_ptr(), tokens, x.data_ptr(), _address(mask),
                     logits.data_ptr(), probabilities.data_ptr(), ids.data_ptr(), weights.data_ptr(),
                     torch.get_num_threads())  # fmt: skip
    return logits, probabilities, ids, weights


@nn_route.register_fake
def _(x, weight, mask, choices, score, select, parameter, weighting):
    tokens, experts = x.shape[0], weight.shape[0]
    return (x.new_empty(tokens, experts), x.new_empty(tokens, experts),
            x.new_empty(tokens, choices, dtype=torch.int64), x.new_empty(tokens, choices))  # fmt: skip


@torch.library.custom_op("hmoe::nn_route_backward", mutates_args=(), device_types="cpu")
def nn_route_backward(x: Tensor, weight: Tensor, mask: Optional[Tensor], logits: Tensor, probabilities: Tensor,
                      ids: Tensor, weights: Tensor, d_logits: Optional[Tensor], d_probabilities: Optional[Tensor],
                      d_weights: Optional[Tensor], score: str, select: str, parameter: float, weighting: str,
                      wanted: List[bool]) -> tuple[Tensor, Tensor]:  # fmt: skip
    _check_router(x, weight, mask)
    x, weight = _contiguous(x, weight)
    given = [None if t is None else t.contiguous() for t in (mask, d_logits, d_probabilities, d_weights)]
    gradients = _empty_gradients((x, weight), wanted)
    (tokens, d_model), experts = x.shape, weight.shape[0]
    policies = _core.RouterPolicies(d_model, experts, score, select, parameter, weighting)
    _core.run_router_backward(policies, x.dtype == torch.float64, weight.data_ptr(), tokens, x.data_ptr(),
                              _address(given[0]), logits.data_ptr(), probabilities.data_ptr(), ids.data_ptr(),
                              weights.data_ptr(), _address(given[1]), _address(given[2]), _address(given[3]),
                              *(g.data_ptr() if w else 0 for g, w in zip(gradients, wanted)),
                              torch.get_num_threads())  # fmt: skip
    return tuple(gradients)


@nn_route_backward.register_fake
def _(x, weight, mask, logits, probabilities, ids, weights, d_logits, d_probabilities, d_weights, score, select,
      parameter, weighting, wanted):  # fmt: skip
    return tuple(_empty_gradients((x, weight), wanted))


def _keep_for_route(ctx, inputs, output):
    x, weight, mask, _, *ctx.policies = inputs
    ctx.set_materialize_grads(False)
    ctx.has_mask = mask is not None
    ctx.save_for_backward(x, weight, *output, *([mask] if ctx.has_mask else []))


def _route_gradients(ctx, d_logits, d_probabilities, d_ids, d_weights):
    x, weight, logits, probabilities, ids, weights, *mask = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:2])
    gradients = torch.ops.hmoe.nn_route_backward(
        x, weight, mask[0] if ctx.has_mask else None, logits, probabilities, ids, weights, d_logits, d_probabilities,
        d_weights, *ctx.policies, wanted)
    return *(g if w else None for g, w in zip(gradients, wanted)), None, None, None, None, None, None


nn_route.register_autograd(_route_gradients, setup_context=_keep_for_route)


def route(x, weight, mask, choices, score, select, parameter, weighting):
    _require_cpu(x)
    return torch.ops.hmoe.nn_route(x, weight, mask, choices, score, select, parameter, weighting)


# Auxiliary losses.


@torch.library.custom_op("hmoe::nn_loss", mutates_args=(), device_types="cpu")
def nn_loss(name: str, logits: Tensor, probabilities: Tensor, ids: Tensor, weights: Tensor, mask: Optional[Tensor],
            widths: List[int]) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The value without a coefficient, and its gradients by logits and by probabilities."""
    if logits.shape != probabilities.shape or logits.shape != (ids.shape[0], len(widths)):
        raise Error(f"logits are {tuple(logits.shape)} and probabilities {tuple(probabilities.shape)}, needed is "
                         f"{(ids.shape[0], len(widths))}")  # fmt: skip
    if ids.dim() != 2 or weights.shape != ids.shape:
        raise Error(f"ids are {tuple(ids.shape)} and weights {tuple(weights.shape)}: needed is [tokens, choices] for both")
    _check_mask(mask, ids.shape[0])
    logits, probabilities, ids, weights = _contiguous(logits, probabilities, ids, weights)
    mask = None if mask is None else mask.contiguous()
    d_logits, d_probabilities = torch.empty_like(logits), torch.empty_like(logits)
    value = _core.auxiliary_loss(name, logits.dtype == torch.float64, widths, *ids.shape, logits.data_ptr(),
                                 probabilities.data_ptr(), ids.data_ptr(), weights.data_ptr(), _address(mask),
                                 d_logits.data_ptr(), d_probabilities.data_ptr())  # fmt: skip
    return logits.new_tensor(value), d_logits, d_probabilities


@nn_loss.register_fake
def _(name, logits, probabilities, ids, weights, mask, widths):
    like = torch.empty_like(logits, memory_format=torch.contiguous_format)
    return logits.new_empty(()), like, torch.empty_like(like)


def _keep_for_loss(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:])


def _loss_gradients(ctx, d_value, *others):
    d_logits, d_probabilities = ctx.saved_tensors
    if any(d is not None for d in others):
        raise Error("auxiliary losses have no second derivatives")
    if d_value is None:
        return (None,) * 7
    return None, d_value * d_logits, d_value * d_probabilities, None, None, None, None


nn_loss.register_autograd(_loss_gradients, setup_context=_keep_for_loss)


def auxiliary_loss(name, routing, mask, widths):
    kind, ids = sum_type(routing.logits), ids_of(routing.ids)
    weights = weights_of_choices(ids, routing.weights, len(widths))
    return torch.ops.hmoe.nn_loss(name, routing.logits.to(kind), routing.probabilities.to(kind),
                                  ids, weights.to(kind), mask, widths)[0]  # fmt: skip
