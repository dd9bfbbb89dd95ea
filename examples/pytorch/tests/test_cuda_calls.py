# SPDX-License-Identifier: MIT
"""What hmoe/_cuda_ops.py makes of tensors before and after the kernels, without a GPU: a stand-in for hmoe._cuda computes on the
addresses that it is given, by the operators for CPUs."""

import ctypes
import math

import pytest
import torch

import hmoe
from hmoe import _cuda_ops, ops

WIDTHS = [6, 0, 10]
D, TOKENS, CHOICES = 8, 5, 2


def view(address, dtype, count):
    if count == 0:
        return torch.empty(0, dtype=dtype)
    assert address != 0
    return torch.frombuffer((ctypes.c_char * (count * dtype.itemsize)).from_address(address), dtype=dtype)


class Experts:
    """As _cuda.Experts: rows of gates above those of up projections, biases and gradients in float32."""

    def __init__(self, d_model, widths, *, type, function, limit, alpha, gated):
        self.d, self.widths, self.type = d_model, widths, getattr(torch, type)
        self.how = dict(function=function, limit=limit, alpha=alpha, gated=gated)
        self.lanes, self.table = 2 if gated else 1, bytes(range(256))
        hidden = sum(widths)
        self.sizes = (self.lanes * hidden * d_model, hidden * d_model, self.lanes * hidden, len(widths) * d_model)

    def forward_bytes(self, tokens, choices, keeps):
        return 256 + keeps

    def backward_bytes(self, tokens, choices):
        return 258

    def tensors(self, place, weights, batch, bytes):
        device, stream, table, workspace, size, tf32 = place
        assert (device, stream, size, tf32) == (0, 77, bytes, False) and workspace % 16 == 0
        assert view(table, torch.uint8, 256).tolist() == list(range(256))
        tokens, choices, x, ids, shares = batch
        types = (self.type, self.type, torch.float32, torch.float32)
        read = [view(a, t, n) if a or n == 0 else None for a, t, n in zip(weights, types, self.sizes)]
        if weights[3] == 0:
            read[2] = None
        return (view(x, self.type, tokens * self.d).view(tokens, self.d), view(ids, torch.int64, tokens * choices).view(tokens, choices),
                view(shares, torch.float32, tokens * choices).view(tokens, choices), *read)  # fmt: skip

    def run(self, x, ids, shares, *read):
        read = [None if t is None else t.to(self.type) for t in read]
        return ops.experts(x, ids, shares, *read, widths=self.widths, **self.how)

    def forward(self, place, weights, batch, y, kept):
        keeps = kept[0] != 0
        given = self.tensors(place, weights, batch, 256 + keeps)
        view(y, self.type, given[0].numel()).copy_(self.run(*given).reshape(-1))
        if keeps:  # to be found again
            view(kept[0], torch.uint8, 3).copy_(torch.tensor([1, 2, 3]))
        assert (kept[1] != 0) == keeps

    def backward(self, place, weights, batch, dy, kept, dx, d_weights, gradients):
        x, ids, shares, *read = self.tensors(place, weights, batch, 258)
        assert view(kept[0], torch.uint8, 3).tolist() == [1, 2, 3]
        view(kept[1], torch.float32, batch[0] * batch[1] * self.d).fill_(4)  # room for rows
        leaves = [None if t is None else t.clone().requires_grad_() for t in (x, shares, *read)]
        y = self.run(leaves[0], ids, *leaves[1:])
        right = iter(torch.autograd.grad(y, [t for t in leaves if t is not None], view(dy, self.type, x.numel()).view(x.shape)))
        right = [None if t is None else next(right) for t in leaves]
        view(dx, self.type, x.numel()).copy_(right[0].reshape(-1))
        view(d_weights, torch.float32, shares.numel()).copy_(right[1].reshape(-1))
        for address, one in zip(gradients, right[2:]):
            if address:
                view(address, torch.float32, one.numel()).add_(one.reshape(-1))


class Module:
    pass


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    module = Module()
    module.Experts = Experts
    monkeypatch.setattr(_cuda_ops, "_cuda", module)
    monkeypatch.setattr(_cuda_ops, "_stream", lambda device: 77)
    monkeypatch.setattr(_cuda_ops, "_made", {})


def draw(dtype, gated, biased, widths=WIDTHS):
    torch.manual_seed(4)
    lanes, hidden = 2 if gated else 1, sum(widths)
    shapes = [(TOKENS, D), (TOKENS, CHOICES), (lanes * hidden, D), (hidden * D,)]
    shapes += [(lanes * hidden,), (len(widths), D)] if biased else []
    x, shares, *weights = [torch.randn(shape).to(dtype) for shape in shapes]
    ids = torch.tensor([[0, 2], [2, 1], [1, 3], [-1, 0], [0, 2]])
    return x, ids, shares.float(), weights + [None] * (4 - len(weights))


def near(own, right):
    tolerance = 0.03 if own.dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(own, right, rtol=tolerance, atol=2 * tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gated, biased, interleaved", [(True, False, False), (True, True, True), (False, True, True)])
def test_forward_and_backward_are_those_of_the_cpu(dtype, gated, biased, interleaved):
    x, ids, shares, weights = draw(dtype, gated, biased)
    how = (WIDTHS, "silu", math.inf, 1.702, gated, interleaved)
    for keep in (False, True):
        expected = ops._experts(x, ids, shares, *weights, *how, keep)
        rows = TOKENS * CHOICES if keep else 0
        empty = (torch.empty_like(x), *_cuda_ops.kept(x, WIDTHS, 2 if gated else 1, rows))
        y, hidden, outputs = _cuda_ops.forward(x, ids, shares, *weights, *how, keep, empty)
        near(y, expected[0])
    assert hidden.dtype == dtype and hidden.numel() == rows * (3 if gated else 2) * (12 if dtype == torch.float32 else 16)
    dy = torch.randn(x.shape, dtype=torch.float32).to(dtype)
    there = [weight is not None for weight in weights]
    for wanted in ([True, True, *there], [True, False, False, there[1], False, there[3]], [False, True] + 4 * [False]):
        right = ops._experts_backward(dy, *expected[1:], x, ids, shares, *weights, *how, wanted)
        own = _cuda_ops.backward(dy, hidden, outputs, x, ids, shares, *weights, *how, wanted)
        for a, b in zip(own, right):
            assert a.dtype == b.dtype and a.shape == b.shape
            near(a, b)


def test_transposed_weights_are_held_as_rows():
    transformers = pytest.importorskip("hmoe.transformers")
    torch.manual_seed(5)
    x, ids, shares, _ = draw(torch.float32, True, True)
    first, last, first_bias, last_bias = torch.randn(3, D, 2 * 6), torch.randn(3, 6, D), torch.randn(3, 12), torch.randn(3, D)
    key, how = -7, ("in_place", True, "gpt_oss", 0.75, 1.702, True, True)
    try:
        for change in (0, 1):
            with torch.no_grad():
                last.add_(change)  # is noticed
            y = transformers._held_on_gpu(x, ids, shares, first, last, first_bias, last_bias, key, *how)
            g, u = (first[..., i::2] for i in (0, 1))
            right = torch.zeros_like(x)
            for t in range(TOKENS):
                for e, share in zip(ids[t].tolist(), shares[t]):
                    if 0 <= e < 3:
                        gate = (x[t] @ g[e] + first_bias[e, ::2]).clamp(max=0.75)
                        up = (x[t] @ u[e] + first_bias[e, 1::2]).clamp(-0.75, 0.75)
                        right[t] += share * ((up + 1) * gate * torch.sigmoid(1.702 * gate) @ last[e] + last_bias[e])
            torch.testing.assert_close(y, right, rtol=1e-5, atol=1e-5)
    finally:
        transformers._held.pop(key, None)


def test_mistakes_are_sentences():
    x, ids, shares, weights = draw(torch.float32, True, True)
    how = (WIDTHS, "silu", math.inf, 1.702, True, False)

    def forward(x=x, ids=ids, shares=shares, weights=weights, how=how):
        return _cuda_ops.forward(x, ids, shares, *weights, *how, False, (torch.empty_like(x), None, None))

    forward()
    wide = draw(torch.float64, True, True)
    with pytest.raises(hmoe.Error, match="experts of torch.float64 on cpu: there are kernels for float32 and bfloat16"):
        forward(x=wide[0], weights=wide[3])
    with pytest.raises(hmoe.Error, match="output weights is of torch.bfloat16, needed is torch.float32, the type of x"):
        forward(weights=[weights[0], weights[1].bfloat16(), *weights[2:]])
    with pytest.raises(hmoe.Error, match=r"input biases of shape \[31\] has 31 values, needed are 32"):
        forward(weights=[*weights[:2], weights[2][:31], weights[3]])
    with pytest.raises(hmoe.Error, match="biases of one projection only"):
        forward(weights=[*weights[:3], None])
    with pytest.raises(hmoe.Error, match=r"ids are \(4, 2\)"):
        forward(ids=ids[:4])
    with pytest.raises(hmoe.Error, match="experts: tensors are on cpu and on cuda:0: move all to one device"):
        _cuda_ops.check_devices("experts", x, OnGpu())


class OnGpu:
    device = torch.device("cuda:0")


def test_a_build_without_cuda_says_so(monkeypatch):
    monkeypatch.setattr(_cuda_ops, "_cuda", None)
    with pytest.raises(hmoe.Error, match="experts: a tensor is on cuda:0: this build of hmoe computes on the CPU"):
        _cuda_ops.check_devices("experts", OnGpu())


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
