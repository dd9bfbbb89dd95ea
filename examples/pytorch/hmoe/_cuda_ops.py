# SPDX-License-Identifier: MIT
"""The operators of hmoe.ops for CUDA tensors, where the package was built with hmoe._cuda.

Passes run on the current stream of the tensors' device. All memory is torch's: results, what backward needs and scratch are
tensors of that device and stream, so its allocator knows when it may give them to others.
"""

import torch

from ._core import Error

try:
    from . import _cuda
except ImportError:  # built without: the package computes on the CPU alone
    _cuda = None

_TYPES = (torch.float32, torch.bfloat16)

#: (experts of hmoe._cuda, their table on the device) by device, type, shape and function. Entries stay: a captured CUDA graph
#: reads the table as long as it lives.
_made: dict = {}


def check_devices(what, *tensors):
    """hmoe.Error unless all tensors are on one device that there are kernels for."""
    devices = list(dict.fromkeys(t.device for t in tensors if t is not None))
    for device in devices:
        if device.type == "cuda" and _cuda is None:
            raise Error(f"{what}: a tensor is on {device}: this build of hmoe computes on the CPU: move all tensors there, or build "
                        "it for GPUs (-C cmake.define.HMOE_PYTHON_CUDA=ON)")  # fmt: skip
        if device.type not in ("cpu", "cuda"):
            also = "" if _cuda is None else " and on CUDA devices"
            raise Error(f"{what}: a tensor is on {device}: hmoe computes on the CPU{also}: move all tensors there")
    if len(devices) > 1:
        raise Error(f"{what}: tensors are on {' and on '.join(map(str, devices))}: move all to one device")


def kept(x, widths, lanes, rows):
    """What a forward pass on a GPU keeps, for `rows` pairs of token and choice: values of hidden layers in x's type, a row of the
    widest expert rounded up to 16 bytes, before and after the activation; and none of the outputs."""
    unit = 16 // x.dtype.itemsize
    stride = -(-max(widths, default=0) // unit) * unit
    return x.new_empty((rows * (lanes + 1) * stride,)), x.new_empty((0, x.shape[1]), dtype=torch.float32)


def _stream(device):
    return torch.cuda.current_stream(device).cuda_stream


def _experts_of(x, widths, function, limit, alpha, gated):
    key = (x.device, x.dtype, x.shape[1], tuple(widths), function, limit, alpha, gated)
    found = _made.get(key)
    if found is None:
        experts = _cuda.Experts(x.shape[1], list(widths), type=str(x.dtype).removeprefix("torch."), function=function,
                                limit=limit, alpha=alpha, gated=gated)  # fmt: skip
        table = torch.frombuffer(bytearray(experts.table), dtype=torch.uint8).to(x.device)  # waits for the copy
        found = _made[key] = experts, table
    return found


def _address(tensor):
    return 0 if tensor is None else tensor.data_ptr()


_NAMES = ("input weights", "output weights", "input biases", "output biases")


def _check_types(x, ids, weights, tensors):
    check_devices("experts", x, ids, weights, *tensors)
    if x.dtype not in _TYPES:
        raise Error(f"experts of {x.dtype} on {x.device}: there are kernels for float32 and bfloat16: convert them, or move them "
                    "to the CPU")  # fmt: skip
    if x.dim() != 2 or ids.dim() != 2 or ids.shape != weights.shape or ids.shape[0] != x.shape[0]:
        raise Error(f"x is {tuple(x.shape)}, ids are {tuple(ids.shape)} and weights {tuple(weights.shape)}: needed are [tokens, "
                    "d_model], and [tokens, choices] for both")  # fmt: skip
    if ids.dtype != torch.int64 or weights.dtype != torch.float32:
        raise Error(f"ids are {ids.dtype} and weights {weights.dtype}, needed are torch.int64 and torch.float32")
    for name, tensor in zip(_NAMES, tensors):
        if tensor is not None and tensor.dtype != x.dtype:
            raise Error(f"{name} is of {tensor.dtype}, needed is {x.dtype}, the type of x")
    if (tensors[2] is None) != (tensors[3] is None):
        raise Error("biases of one projection only: give both, zeros where there are none")


def _check_sizes(tensors, sizes):
    for name, tensor, size in zip(_NAMES, tensors, sizes):
        if tensor is not None and tensor.numel() != size:
            raise Error(f"{name} of shape {list(tensor.shape)} has {tensor.numel()} values, needed are {size}")


def _in_turn(rows, widths, back):
    """Rows of gates and of up projections that stand in turn, with the gates of an expert above its up rows; or back again."""
    parts, count = [], 2 * sum(widths)
    for part in rows.reshape(count, rows.numel() // max(count, 1)).split([2 * h for h in widths]):
        shape = (2, part.shape[0] // 2) if back else (part.shape[0] // 2, 2)
        parts.append(part.reshape(*shape, part.shape[1]).transpose(0, 1).reshape(part.shape))
    return torch.cat(parts).reshape(rows.shape)


def read_tensors(input, output, input_bias, output_bias, widths, interleaved):
    """The tensors as the kernels read them, which are kept until the launches are over."""
    return (
        (_in_turn(input, widths, back=False) if interleaved else input).contiguous(),
        output.contiguous(),
        None if input_bias is None else input_bias.to(torch.float32).contiguous(),
        None if output_bias is None else output_bias.to(torch.float32).contiguous(),
    )


def _place(x, table, workspace):
    return (x.device.index or 0, _stream(x.device), table.data_ptr(), workspace.data_ptr(), workspace.numel(),
            torch.get_float32_matmul_precision() != "highest")  # fmt: skip


def forward(x, ids, weights, input, output, input_bias, output_bias, widths, function, limit, alpha, gated, interleaved, keep,
            empty_results):  # fmt: skip
    """torch.ops.hmoe.experts on a GPU; empty_results: y, and the two of kept()."""
    tensors = (input, output, input_bias, output_bias)
    _check_types(x, ids, weights, tensors)
    experts, _ = _experts_of(x, widths, function, limit, alpha, gated)
    _check_sizes(tensors, experts.sizes)
    y, hidden, none = empty_results
    tensors = read_tensors(*tensors, widths, interleaved and gated)
    run_forward(x, ids, weights, tensors, widths, function, limit, alpha, gated, y, hidden if keep else None)
    return y, hidden, none


def run_forward(x, ids, weights, tensors, widths, function, limit, alpha, gated, y, hidden=None):
    """The pass itself, from tensors as read_tensors makes them. hidden: what is kept for a backward pass."""
    experts, table = _experts_of(x, widths, function, limit, alpha, gated)
    x, ids, weights = x.contiguous(), ids.contiguous(), weights.contiguous()
    tokens, choices = ids.shape
    workspace = x.new_empty((experts.forward_bytes(tokens, choices, hidden is not None),), dtype=torch.uint8)
    rows = None if hidden is None else x.new_empty((tokens * choices, x.shape[1]), dtype=torch.float32)
    experts.forward(
        _place(x, table, workspace),
        tuple(map(_address, tensors)),
        (tokens, choices, x.data_ptr(), ids.data_ptr(), weights.data_ptr()),
        y.data_ptr(),
        (_address(hidden), _address(rows)),
    )


def backward(dy, hidden, _, x, ids, weights, input, output, input_bias, output_bias, widths, function, limit, alpha,
             gated, interleaved, wanted):  # fmt: skip
    """torch.ops.hmoe.experts_backward on a GPU. Kernels add up gradients of experts in float32; dx and d_weights cost little beside
    what all gradients need."""
    tensors = (input, output, input_bias, output_bias)
    _check_types(x, ids, weights, tensors)
    experts, table = _experts_of(x, widths, function, limit, alpha, gated)
    _check_sizes(tensors, experts.sizes)
    x, ids, weights, dy = x.contiguous(), ids.contiguous(), weights.contiguous(), dy.contiguous()
    read = read_tensors(*tensors, widths, interleaved and gated)
    dx, d_weights = torch.empty_like(x), torch.empty_like(weights)
    rows = x.new_empty((ids.numel(), x.shape[1]), dtype=torch.float32)
    sums = [torch.zeros(t.shape, dtype=torch.float32, device=t.device) if w else None for t, w in zip(tensors, wanted[2:])]
    tokens, choices = ids.shape
    workspace = x.new_empty((experts.backward_bytes(tokens, choices),), dtype=torch.uint8)
    experts.backward(
        _place(x, table, workspace),
        tuple(map(_address, read)),
        (tokens, choices, x.data_ptr(), ids.data_ptr(), weights.data_ptr()),
        dy.data_ptr(),
        (hidden.data_ptr(), rows.data_ptr()),  # hidden values behind the activation are written again, from those before it
        dx.data_ptr(),
        d_weights.data_ptr(),
        tuple(map(_address, sums)),
    )
    if interleaved and gated and sums[0] is not None:
        sums[0] = _in_turn(sums[0], widths, back=True)
    gradients = (dx, d_weights, *(None if g is None else g.to(t.dtype) for g, t in zip(sums, tensors)))
    return tuple(g if w else x.new_empty((0,)) for g, w in zip(gradients, wanted))


def register(experts, experts_backward, fake):
    """Gives the operators of hmoe.ops their form for CUDA tensors."""

    @experts.register_kernel("cuda")
    def _(x, ids, weights, input, output, input_bias, output_bias, widths, function, limit, alpha, gated, interleaved, keep):
        if _cuda is None:
            check_devices("experts", x)
        results = fake(x, ids, weights, input, output, input_bias, output_bias, widths, function, limit, alpha, gated,
                       interleaved, keep)  # fmt: skip
        return forward(x, ids, weights, input, output, input_bias, output_bias, widths, function, limit, alpha, gated,
                       interleaved, keep, results)  # fmt: skip

    experts_backward.register_kernel("cuda")(backward)
