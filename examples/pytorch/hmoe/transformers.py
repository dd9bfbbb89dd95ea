# SPDX-License-Identifier: MIT
"""Importing this module makes experts_implementation="hmoe" available in transformers (5 and later):

    import hmoe.transformers
    model = AutoModelForCausalLM.from_pretrained(name, experts_implementation="hmoe")
    model.set_experts_implementation("hmoe")          # or later

Every model whose experts go through transformers' interface for them runs on hmoe's kernels then, forward and backward, on
CPUs, with weights of float32, float64 or bfloat16. configure() chooses how weights are held for inference. Where the package
was built for GPUs, models that lie there run there, with weights of float32 or bfloat16 in place.
"""

import itertools
import math
import warnings
import weakref
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from transformers.integrations import moe

from . import _core, _cuda_ops, _nn_ops, ops

__all__ = ["configure", "experts_forward", "packed_bytes", "release"]

IN_PLACE = "in_place"
FORMATS = ("f32", "bf16", "q8_channel", "q4")

_default = IN_PLACE


def configure(model: Optional[torch.nn.Module] = None, *, weights: str) -> None:
    """How weights are held for passes without gradients, of a model's experts, or of all that are not configured.

    in_place     (the default) in the model's tensors. No more memory, but for tensors that are stored transposed (gpt-oss):
                 these have a copy in rows, of the same size, which is made at the first pass.
    f32, bf16, q8_channel, q4
                 packed once, at the first pass, in the order in which the kernels read them: quicker, in 4, 2, 1 or 0.56 bytes
                 a weight in addition to the model's. f32 and bf16 hold weights of these types exactly; the others round
                 (docs/simd.md).

    Weights that have changed since (by an optimiser, load_state_dict, or any operation of torch on them) are packed anew.
    Only what goes past torch's count of versions, writing through tensor.data or into the memory, calls for release(model).
    Weights that were made in torch.inference_mode() count no versions: they are packed at each pass.
    Passes with gradients take the weights in place.
    """
    if weights != IN_PLACE and weights not in FORMATS:
        raise _core.Error(f'configure: weights="{weights}": there are {IN_PLACE}, {", ".join(FORMATS)}')
    if model is None:
        global _default
        _default = weights
        return
    for module in _experts_of(model):
        module._hmoe_weights = weights
    release(model)


def release(model: torch.nn.Module) -> None:
    """Gives packed weights back; the next pass packs those that the model has then."""
    for module in _experts_of(model):
        _held.pop(getattr(module, "_hmoe_key", None), None)


def packed_bytes(model: torch.nn.Module) -> int:
    """Bytes of the copies that hmoe holds of a model's weights now."""
    held = (_held.get(getattr(module, "_hmoe_key", None)) for module in _experts_of(model))
    return sum(h.bytes for h in held if h is not None)


def experts_forward(module: torch.nn.Module, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """The experts of a layer, in transformers' interface: sum over i of weight[t, i] * expert_{id[t, i]}(x_t) in the type
    of the hidden states [tokens, d]. Ids from the number of experts on, which experts in parallel have for those of other
    ranks, are skipped."""
    step = _recognise(module)
    if step == UNKNOWN:
        return moe.grouped_mm_experts_forward(module, hidden_states, top_k_index, top_k_weights)
    function, limit, alpha, interleaved = step
    gated = module.has_gate
    first = module.gate_up_proj if gated else module.up_proj
    last = module.down_proj
    first_bias = last_bias = None
    if module.has_bias:
        first_bias = module.gate_up_proj_bias if gated else module.up_proj_bias
        last_bias = module.down_proj_bias
    _check(first, hidden_states)
    top_k_weights = _nn_ops.weights_of_choices(top_k_index, top_k_weights, first.shape[0])

    tensors = (hidden_states, top_k_weights, first, last, first_bias, last_bias)
    training = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    weights = getattr(module, "_hmoe_weights", _default)
    if first.device.type != "cpu":  # packed weights are for CPUs
        weights = IN_PLACE
    how = dict(function=function, limit=limit, alpha=alpha, gated=gated, interleaved=interleaved)

    norm = module.post_expert_norm if getattr(module, "has_post_expert_norm", False) else None
    x, ids, shares = hidden_states, top_k_index, top_k_weights
    if norm is not None:  # it is not linear, so each choice is a token of its own
        x = hidden_states.repeat_interleave(ids.shape[1], dim=0)
        ids, shares = ids.reshape(-1, 1), torch.ones_like(shares).reshape(-1, 1)
    if training or not (module.is_transposed or weights != IN_PLACE):
        if module.is_transposed:
            first, last = first.transpose(1, 2), last.transpose(1, 2)
        y = ops.experts(x, ids, shares, first, last, _one_after_the_other(first_bias, interleaved), last_bias, **how)
    else:
        y = torch.ops.hmoe.held_experts(
            x.to(first.dtype).contiguous(), ids.to(torch.int64).contiguous(),
            shares.to(torch.float64 if first.dtype == torch.float64 else torch.float32).contiguous(),
            first, last, first_bias, last_bias, _key_of(module), weights, module.is_transposed, *how.values())
    if norm is not None:
        y = norm(y).view(*top_k_index.shape, -1) * top_k_weights.unsqueeze(-1)
        if module._is_expert_parallel:
            y = y.masked_fill((top_k_index >= module.num_experts).unsqueeze(-1), 0)
        y = y.sum(1)
    return y.to(hidden_states.dtype)


def _one_after_the_other(bias: Optional[Tensor], interleaved: bool) -> Optional[Tensor]:
    """Biases of gates in front of those of up projections, where they stand in turn."""
    return bias.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1) if bias is not None and interleaved else bias


moe.ALL_EXPERTS_FUNCTIONS.register("hmoe", experts_forward)


def _check(weights: Tensor, hidden_states: Tensor) -> None:
    _cuda_ops.check_devices('experts_implementation="hmoe"', hidden_states, weights)
    if weights.dtype not in (torch.float32, torch.float64, torch.bfloat16):
        raise _core.Error(f"experts with weights of {weights.dtype}: hmoe computes with those of float32, float64 and bfloat16: "
                          "load the model with dtype=torch.bfloat16")


# What is held of weights, under the key of a module.

_keys = itertools.count()
_held: dict = {}


class _Held:
    """Copies of a module's weights, and what they are copies of."""

    def __init__(self, stamp, bank, bytes):
        self.stamp, self.bank, self.bytes = stamp, bank, bytes


def _key_of(module) -> int:
    key = getattr(module, "_hmoe_key", None)
    if key is None or _owner.get(key, lambda: None)() is not module:  # a copy of a module has its attributes, too
        key = module._hmoe_key = next(_keys)
        _owner[key] = weakref.ref(module, lambda _, k=key: (_held.pop(k, None), _owner.pop(k, None)))
    return key


_owner: dict = {}


def _experts_of(model):
    return [m for m in model.modules() if hasattr(m, "_is_expert_parallel") and hasattr(m, "down_proj")]


def _stamp(tensors, *more):
    """What a copy of these tensors is a copy of; None for tensors of inference mode, which count no versions. The weak
    reference tells a new storage at an old address."""
    if any(t is not None and t.is_inference() for t in tensors):
        return None

    def one(t):
        return None if t is None else (StorageWeakRef(t.untyped_storage()), t.data_ptr(), t.shape, t.stride(), t.dtype, t._version)

    return (*map(one, tensors), *more)


@torch.library.custom_op("hmoe::held_experts", mutates_args=(), device_types="cpu")
def _held_experts(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    first: Tensor,
    last: Tensor,
    first_bias: Optional[Tensor],
    last_bias: Optional[Tensor],
    key: int,
    form: str,
    transposed: bool,
    function: str,
    limit: float,
    alpha: float,
    gated: bool,
    interleaved: bool,
) -> Tensor:
    """Experts from copies of their weights, which are made anew where the weights have changed. Without gradients."""
    held = _held.get(key)
    stamp = _stamp((first, last, first_bias, last_bias), form)
    if held is None or stamp is None or held.stamp != stamp:
        _held.pop(key, None)  # before the new ones take memory
        rows = [t.transpose(1, 2) if transposed else t for t in (first, last)]
        rows = [t.contiguous() for t in rows]
        lanes = 2 if gated else 1
        widths = [rows[0].shape[1] // lanes] * rows[0].shape[0]
        biases = [None if b is None else b.contiguous() for b in (_one_after_the_other(first_bias, interleaved), last_bias)]
        bank = ops._bank(x.shape[1], widths, *rows, *biases, function, limit, alpha, gated, interleaved)
        size = sum(r.nbytes for r in rows) if transposed else 0
        if form != IN_PLACE:
            bank = _core.PackedBank(bank, form)
            size = bank.bytes
        held = _Held(stamp, bank, size)
        if stamp is not None:
            _held[key] = held
    y = torch.empty_like(x)
    threads = torch.get_num_threads()
    if form == IN_PLACE:
        _core.forward(held.bank, x.detach(), ids, weights.detach(), y, threads=threads)
    else:
        held.bank.forward(x.detach(), ids, weights.detach(), y, threads=threads)
    return y


@_held_experts.register_kernel("cuda")
def _held_on_gpu(x, ids, weights, first, last, first_bias, last_bias, key, form, transposed, function, limit, alpha, gated,
                 interleaved):  # fmt: skip
    """The same on a GPU, for weights that are stored transposed: the copy in rows has gates above up projections."""
    held = _held.get(key)
    stamp = _stamp((first, last, first_bias, last_bias), form)
    if held is None or stamp is None or held.stamp != stamp:
        _held.pop(key, None)
        rows = [t.transpose(1, 2) if transposed else t for t in (first, last)]
        widths = [rows[0].shape[1] // (2 if gated else 1)] * rows[0].shape[0]
        tensors = _cuda_ops.read_tensors(*rows, _one_after_the_other(first_bias, interleaved), last_bias, widths,
                                         interleaved and gated)
        held = _Held(stamp, (tensors, widths), sum(t.nbytes for t in tensors if t is not None))
        if stamp is not None:
            _held[key] = held
    tensors, widths = held.bank
    y = torch.empty_like(x)
    _cuda_ops.run_forward(x, ids, weights, tensors, widths, function, limit, alpha, gated, y)
    return y


@_held_experts.register_fake
def _(x, *_):
    return torch.empty_like(x)


# What a module computes between its projections. Models say it by methods of their own, so it is found by trying.

UNKNOWN = ("unknown", 0.0, 0.0, False)

_activations = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda z: F.relu(z).square(),
    "linear": lambda z: z,
}


def _steps(module):
    """(what hmoe can compute, how torch would) for all steps with the limits and factors that the module names."""

    def numbers(*words):
        found = {}
        for owner in (module, getattr(module, "act_fn", None)):
            for name, value in vars(owner).items() if owner is not None else ():
                if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
                    if any(word in name for word in words):
                        found[float(value)] = None
        return list(found)

    for limit in [math.inf, *numbers("limit")]:
        for name, act in _activations.items():
            yield (name, limit, 1.0), lambda g, u, a=act, m=limit: a(g.clamp(max=m)) * u.clamp(-m, m)
        yield ("silu_then_limit", limit, 1.0), lambda g, u, m=limit: F.silu(g).clamp(max=m) * u.clamp(-m, m)
        for alpha in numbers("alpha") or [1.702]:
            yield ("gpt_oss", limit, alpha), lambda g, u, m=limit, a=alpha: (
                (u.clamp(-m, m) + 1) * g.clamp(max=m) * torch.sigmoid(a * g.clamp(max=m)))
    caps = [[float(v) for v in vars(child).values() if isinstance(v, (int, float)) and not isinstance(v, bool) and v > 0]
            for child in getattr(module, "act_fn", torch.nn.Identity()).children()]
    if len(caps) == 2:
        for c, k in itertools.product(*caps):
            yield ("softcapped", c, k), lambda g, u, c=c, k=k: (
                c * torch.tanh(g / c) * torch.sigmoid(g) * k * torch.tanh(u / k))


@torch.compiler.assume_constant_result
def _recognise(module):
    """(function, limit, alpha, interleaved) of hmoe.ops.experts; UNKNOWN, with a warning, where it has none. Kept until the
    activation or a number of it or of the module changes."""
    act = getattr(module, "act_fn", None)
    owners = [module, *(act.modules() if isinstance(act, torch.nn.Module) else ())]
    numbers = [value for owner in owners for name, value in vars(owner).items()
               if type(value) in (int, float) and not name.startswith("_hmoe")]  # fmt: skip
    if getattr(module, "_hmoe_step", (None, None))[0] != (act, numbers):
        module._hmoe_step = (act, numbers), _tried(module)
    return module._hmoe_step[1]


def _tried(module):
    generator = torch.Generator().manual_seed(1)
    values = 6 * torch.randn((64, 2 * 64), generator=generator, dtype=torch.float64, device="cpu")
    values[:4] *= 20  # beyond limits
    step = UNKNOWN
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        if not module.has_gate:
            actual = module.act_fn(values).double()
            for name, act in _activations.items():
                if torch.allclose(actual, act(values), rtol=1e-5, atol=1e-6):
                    step = (name, math.inf, 1.0, False)
                    break
        else:
            actual = module._apply_gate(values).double()
            layouts = {False: values.chunk(2, dim=-1), True: (values[:, ::2], values[:, 1::2])}
            for interleaved, (g, u) in layouts.items():
                for (name, limit, alpha), compute in _steps(module):
                    if actual.shape == g.shape and torch.allclose(actual, compute(g, u), rtol=1e-5, atol=1e-5):
                        step = (name, limit, alpha, interleaved)
                        break
                if step != UNKNOWN:
                    break
    if step == UNKNOWN:
        warnings.warn(f"hmoe knows no kernel for what {type(module).__name__} computes between its projections: "
                      "transformers' grouped_mm computes these experts", stacklevel=3)
    return step
