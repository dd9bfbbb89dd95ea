# SPDX-License-Identifier: MIT
"""The experts of a layer on torch tensors: experts(...), differentiable, under torch.compile without a graph break.

The operators torch.ops.hmoe.experts and experts_backward are registered with torch.library, in Python: the compiled
module sees nothing of torch but the memory of its tensors.
"""

import math
from typing import List, Optional, Sequence  # older versions of torch know no other lists in schemas

import torch
from torch import Tensor

from . import _core, _cuda_ops, _memory, _nn_ops

__all__ = ["ACTIVATIONS", "experts"]

#: Activations that experts have, and steps that join a gate and up in another way: (up + 1) * gate * sigmoid(alpha * gate)
#: of gpt-oss; min(silu(gate), limit) * up; limit * tanh(gate / limit) * sigmoid(gate) * alpha * tanh(up / alpha).
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu", "relu2", "linear", "gpt_oss", "silu_then_limit", "softcapped")


def experts(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    input: Tensor,
    output: Tensor,
    input_bias: Optional[Tensor] = None,
    output_bias: Optional[Tensor] = None,
    *,
    widths: Optional[Sequence[int]] = None,
    function: str = "silu",
    limit: float = math.inf,
    alpha: float = 1.702,
    gated: bool = True,
    interleaved: bool = False,
) -> Tensor:
    """y_t = sum over i of weights[t, i] * expert_{ids[t, i]}(x_t), in the shape and type of x.

    x        [..., d_model], float32, float64 or bfloat16; on a GPU (where the package was built for it) not float64
    ids      [tokens, choices]: ids that are no expert (negative, or the number of experts and above) are skipped
    weights  [tokens, choices]
    input    the weights that read a token, row by row: the experts' rows one behind the other, of each h rows of its
             gate and h rows of its up projection (interleaved: in turn), or h rows where it is not gated;
             [experts, 2 h, d_model] where all widths are the same, [sum of 2 h, d_model] where they are not
    output   [experts, d_model, h], or [sum of d_model * h]: each expert's matrix behind the other
             Both may be transpose(1, 2) of what lies in memory: on a CPU passes with gradients read these where they lie,
             in float32, and in bfloat16 with AVX-512 BF16; others copy them.
    input_bias, output_bias   [experts, 2 h] (or [sum of 2 h]; not interleaved) and [experts, d_model]
    widths   h of each expert; may be omitted where input has three dimensions

    An expert computes W_out a + b with a = function(gate) * up, or function(up); a finite limit clamps the gate from
    above and up to +-limit before that. Raises hmoe.Error where shapes, types or numbers do not fit.
    Gradients: x, weights, and the experts' weights and biases. Sums of bfloat16 are float32, rounded once; where the
    CPU has AVX-512 BF16, passes with gradients round hidden values and gradients to it, too, each once, before they are
    multiplied.
    """
    if widths is None:
        if input.dim() != 3:
            raise _core.Error("experts: widths are needed where the input weights have no third dimension")
        widths = [input.shape[1] // (2 if gated else 1)] * input.shape[0]
    _cuda_ops.check_devices("experts", x, ids, weights, input, output, input_bias, output_bias)
    shape, dtype = x.shape, x.dtype
    # Under autocast activations may have another type than parameters: the weights' type is computed with.
    tokens = x.reshape(-1, shape[-1]).to(input.dtype).contiguous()
    sums = torch.float64 if input.dtype == torch.float64 else torch.float32
    tensors = (tokens, weights, input, output, input_bias, output_bias)
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    if x.device.type != "cpu" or not _transposed(input, output):
        input, output = input.contiguous(), output.contiguous()
    y, _, _ = torch.ops.hmoe.experts(
        tokens,
        _nn_ops.ids_of(ids).contiguous(),
        weights.to(sums).contiguous(),
        input,
        output,
        None if input_bias is None else input_bias.contiguous(),
        None if output_bias is None else output_bias.contiguous(),
        _nn_ops.check_widths(widths),
        function,
        limit,
        alpha,
        gated,
        interleaved,
        keep,
    )
    return y.to(dtype).reshape(shape)


def _sums(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _transposed(input, output):
    """Whether both are transpose(1, 2) of tensors in row-major order, and not in that order themselves."""
    return all(t.dim() == 3 and not t.is_contiguous() and t.transpose(1, 2).is_contiguous() for t in (input, output))


def _in_memory(input, output):
    """The tensors of matrices in the order in which they lie, and whether they are transposed in it."""
    transposed = _transposed(input, output)
    return (transposed, *(t.transpose(1, 2) if transposed else t for t in (input, output)))


def _bank(d_model, widths, input, output, input_bias, output_bias, function, limit, alpha, gated, interleaved):
    def array(t):
        return None if t is None else t.detach()

    transposed, input, output = _in_memory(input, output)
    return _core.Bank(
        d_model,
        widths,
        array(input),
        array(output),
        array(input_bias),
        array(output_bias),
        function=function,
        limit=limit,
        alpha=alpha,
        gated=gated,
        interleaved=interleaved,
        transposed=transposed,
    )


def _readable(input, output, gradients):
    """The tensors where the kernels read them as they lie, else copies in rows."""
    if gradients and _core.takes_transposed(str(input.dtype).removeprefix("torch.")):
        return input, output
    return input.contiguous(), output.contiguous()


@torch.library.custom_op("hmoe::experts", mutates_args=(), device_types="cpu")
def _experts(
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    input: Tensor,
    output: Tensor,
    input_bias: Optional[Tensor],
    output_bias: Optional[Tensor],
    widths: Sequence[int],
    function: str,
    limit: float,
    alpha: float,
    gated: bool,
    interleaved: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    y, saved, outputs = _experts_fake(x, ids, weights, input, output, input_bias, output_bias, widths, function, limit,
                                      alpha, gated, interleaved, keep)
    input, output = _readable(input, output, keep)
    bank = _bank(x.shape[1], widths, input, output, input_bias, output_bias, function, limit, alpha, gated, interleaved)
    kept = (saved, outputs) if keep else (None, None)
    _core.forward(bank, x.detach(), ids, weights.detach(), y, *kept, threads=torch.get_num_threads())
    return y, saved, outputs


@_experts.register_fake
def _experts_fake(x, ids, weights, input, output, input_bias, output_bias, widths, function, limit, alpha, gated,
                  interleaved, keep):
    rows = ids.numel() if keep else 0
    lanes = 2 if gated else 1
    if x.device.type == "cuda":
        return torch.empty_like(x), *_cuda_ops.kept(x, widths, lanes, rows)
    saved = x.new_empty((rows * (lanes + 1) * max(widths, default=0),), dtype=_sums(x.dtype))
    return torch.empty_like(x), saved, x.new_empty((rows, x.shape[1]), dtype=_sums(x.dtype))


@torch.library.custom_op("hmoe::experts_backward", mutates_args=(), device_types="cpu")
def _experts_backward(
    dy: Tensor,
    saved: Tensor,
    outputs: Tensor,
    x: Tensor,
    ids: Tensor,
    weights: Tensor,
    input: Tensor,
    output: Tensor,
    input_bias: Optional[Tensor],
    output_bias: Optional[Tensor],
    widths: Sequence[int],
    function: str,
    limit: float,
    alpha: float,
    gated: bool,
    interleaved: bool,
    wanted: List[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weights, and the four tensors of the experts; empty ones of those that are not wanted."""
    parameters = (*_readable(input, output, True), input_bias, output_bias)
    gradients = _empty_gradients(x, (x, weights, *parameters), wanted, _memory.empty_like)
    dx, d_weights, *of_experts = [g if w else None for g, w in zip(gradients, wanted)]
    bank = _bank(x.shape[1], widths, *parameters, function, limit, alpha, gated, interleaved)
    if _transposed(*parameters[:2]):
        of_experts[:2] = [None if g is None else g.transpose(1, 2) for g in of_experts[:2]]
    sums = bank.gradients(*of_experts) if any(wanted[2:]) else None
    _core.backward(bank, x.detach(), ids, weights.detach(), dy.detach(), saved, outputs, dx, d_weights, sums,
                   threads=torch.get_num_threads())
    return tuple(_as_parameters(g, t) for g, t in zip(gradients, (x, weights, input, output, input_bias, output_bias)))


def _empty_gradients(x, tensors, wanted, empty_like=torch.empty_like):
    """In the order in memory that the tensors have."""
    return [empty_like(t) if w else x.new_empty((0,)) for t, w in zip(tensors, wanted)]


def _as_parameters(gradient, tensor):
    """A gradient in the order in memory that its tensor has."""
    if tensor is None or gradient.shape != tensor.shape or gradient.stride() == tensor.stride():
        return gradient
    return torch.empty_like(tensor).copy_(gradient)


@_experts_backward.register_fake
def _(dy, saved, outputs, x, ids, weights, input, output, input_bias, output_bias, widths, function, limit, alpha,
      gated, interleaved, wanted):
    return tuple(_empty_gradients(x, (x, weights, input, output, input_bias, output_bias), wanted))


def _keep(ctx, inputs, output):
    *tensors, ctx.widths, ctx.function, ctx.limit, ctx.alpha, ctx.gated, ctx.interleaved, ctx.kept = inputs
    ctx.save_for_backward(*tensors, output[1], output[2])
    ctx.set_materialize_grads(False)


def _gradients(ctx, dy, *_):
    nothing = (None,) * 7
    if dy is None:
        return (*nothing, *nothing)
    if not ctx.kept:
        raise _core.Error("experts: backward of a pass that kept nothing: call hmoe.ops.experts, which keeps what "
                          "gradients need")
    *tensors, saved, outputs = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[i] for i in (0, 2, 3, 4, 5, 6)]
    gradients = torch.ops.hmoe.experts_backward(
        dy.contiguous(), saved, outputs, *tensors, ctx.widths, ctx.function, ctx.limit, ctx.alpha, ctx.gated,
        ctx.interleaved, wanted)
    dx, d_weights, *gradients = [g if w else None for g, w in zip(gradients, wanted)]
    return (dx, None, d_weights, *gradients, *nothing)


_experts.register_autograd(_gradients, setup_context=_keep)
_cuda_ops.register(_experts, _experts_backward, _experts_fake)
