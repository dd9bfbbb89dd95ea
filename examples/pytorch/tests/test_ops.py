# SPDX-License-Identifier: MIT
"""The operators on torch tensors: against torch's own arithmetic, and what autograd, compile and autocast ask of them."""

import math
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

import hmoe
from hmoe import _memory
from hmoe.ops import experts

WIDTHS = (24, 8, 40, 1)
D = 20


def gpt_oss(g, u, limit, alpha=1.702):
    g, u = g.clamp(max=limit), u.clamp(-limit, limit)
    return (u + 1) * g * torch.sigmoid(alpha * g)


def silu_then_limit(g, u, limit):
    return F.silu(g).clamp(max=limit) * u.clamp(-limit, limit)


def softcapped(g, u, limit, alpha=1.702):
    return limit * torch.tanh(g / limit) * torch.sigmoid(g) * alpha * torch.tanh(u / alpha)


JOINED = {"gpt_oss": gpt_oss, "silu_then_limit": silu_then_limit, "softcapped": softcapped}
GATES = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda z: F.relu(z).square(),
    "linear": lambda z: z,
}


def layer(dtype=torch.float64, gated=True, biased=False, widths=WIDTHS, d=D, tokens=11, choices=2, seed=3):
    torch.manual_seed(seed)
    lanes = 2 if gated else 1

    def draw(*shape, scale=1.0):
        return (scale * torch.randn(*shape, dtype=torch.float64)).to(dtype).requires_grad_()

    tensors = dict(
        x=draw(tokens, d),
        weights=draw(tokens, choices),
        input=draw(lanes * sum(widths), d, scale=d**-0.5),
        output=draw(sum(widths) * d, scale=0.3),
    )
    if biased:
        tensors.update(input_bias=draw(lanes * sum(widths)), output_bias=draw(len(widths), d))
    ids = torch.stack([torch.randperm(len(widths))[:choices] for _ in range(tokens)])
    return tensors, ids


def by_torch(tensors, ids, gated, function="silu", limit=math.inf, interleaved=False, widths=WIDTHS):
    x, weights = tensors["x"], tensors["weights"]
    lanes = 2 if gated else 1
    y = torch.zeros_like(x)
    rows = columns = 0
    for e, h in enumerate(widths):
        w = tensors["input"][rows : rows + lanes * h].reshape((h, lanes, D) if interleaved else (lanes, h, D))
        w = w.transpose(0, 1) if interleaved else w
        out = tensors["output"][columns : columns + h * D].reshape(D, h)
        z = torch.einsum("td,lhd->lth", x, w)
        if "input_bias" in tensors:
            z = z + tensors["input_bias"][rows : rows + lanes * h].reshape(lanes, 1, h)
        if function in JOINED:
            a = JOINED[function](z[0], z[1], limit)
        elif gated:
            a = GATES[function](z[0].clamp(max=limit)) * z[1].clamp(-limit, limit)
        else:
            a = GATES[function](z[0])
        rows, columns = rows + lanes * h, columns + h * D
        result = a @ out.T
        if "output_bias" in tensors:
            result = result + tensors["output_bias"][e]
        y = y + result * (weights * (ids == e)).sum(1, keepdim=True)
    return y


def gradients(y, tensors):
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(y.dtype)
    return torch.autograd.grad(y, list(tensors.values()), dy)


@pytest.mark.parametrize("function", [*GATES, *JOINED])
@pytest.mark.parametrize("gated, biased, interleaved, limit",
                         [(True, False, False, math.inf), (True, True, True, 0.6), (False, True, False, math.inf)])
def test_values_and_gradients_are_those_of_torch(function, gated, biased, interleaved, limit):
    if function in JOINED and not gated or function == "softcapped" and math.isinf(limit):
        return
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        tensors, ids = layer(dtype, gated, biased)
        y = experts(ids=ids, **tensors, widths=WIDTHS, function=function, limit=limit, gated=gated,
                    interleaved=interleaved)
        expected = by_torch(tensors, ids, gated, function, limit, interleaved)
        torch.testing.assert_close(y, expected, atol=tolerance, rtol=tolerance)
        for name, own, right in zip(tensors, gradients(y, tensors), gradients(expected, tensors)):
            torch.testing.assert_close(own, right, atol=tolerance, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def test_gradcheck():
    tensors, ids = layer(biased=True, widths=(3, 1, 4), d=D, tokens=3)
    assert torch.autograd.gradcheck(
        lambda *t: experts(t[0], ids, *t[1:], widths=(3, 1, 4), function="gelu"), tuple(tensors.values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_passes_without_gradients(dtype):
    """They multiply rows as they lie: up to 128 of an expert together, bits as of one token, tails of all lengths."""
    for widths, d in (((700, 131, 1, 0, 48), 333), ((64, 33), 1100)):
        tensors, ids = layer(dtype, widths=widths, d=d, tokens=300, biased=True)
        tensors = {name: t.detach() for name, t in tensors.items()}
        wide = {name: t.float() for name, t in tensors.items()}
        y = experts(ids=ids, **tensors, widths=widths)
        right = experts(ids=ids, **{n: t.double() for n, t in wide.items()}, widths=widths).float()
        tolerance = 2e-6 if dtype == torch.float32 else 0.01
        assert (y.float() - right).norm() < tolerance * right.norm()
        assert (y.float() - right).abs().max() < 10 * tolerance * right.abs().max()
        for t in (0, 7, 299):
            one = {n: v[t : t + 1] if n in ("x", "weights") else v for n, v in tensors.items()}
            assert torch.equal(experts(ids=ids[t : t + 1], **one, widths=widths)[0], y[t])


@pytest.mark.parametrize("gated", [True, False])
def test_bfloat16_with_gradients(gated):
    """Sizes at which the kernels cut work into pieces, with tails of all lengths. Results and gradients are sums in float:
    they are off by the rounding of their operands, at most 2 ** -8 of each, and their own."""
    widths, d = (701, 131, 0, 1, 258), 301
    tensors, ids = layer(torch.bfloat16, gated, widths=widths, d=d, tokens=1500, biased=True)
    ids[:, 0][torch.randperm(1500)[:1300]] = 0  # more rows than share packed weights; some tokens name an expert twice
    wide = {name: t.detach().double().requires_grad_() for name, t in tensors.items()}
    y, right = (experts(ids=ids, **own, widths=widths, gated=gated) for own in (tensors, wide))
    assert y.dtype == torch.bfloat16
    assert (y.double() - right).norm() < 0.005 * right.norm()
    assert (y.double() - right).abs().max() < 0.02 * right.abs().max()
    for name, own, one in zip(tensors, gradients(y, tensors), gradients(right, wide)):
        assert (own.double() - one).norm() < 0.01 * one.norm(), name
        assert (own.double() - one).abs().max() < 0.03 * one.abs().max(), name


def transposed_layer(dtype, gated, d, h, tokens):
    """Tensors of equal experts whose matrices lie transposed, and the same in rows."""
    tensors, ids = layer(dtype, gated, biased=True, widths=(h,) * 5, d=d, tokens=tokens)
    ids[ids == 3] = 5  # an expert without tokens, ids that are no expert
    ids[: tokens * 2 // 3, 0] = 1  # more rows than others; some tokens name it twice
    lanes = 2 if gated else 1
    rows = dict(tensors, input=tensors["input"].detach().reshape(5, lanes * h, d).requires_grad_(),
                output=tensors["output"].detach().reshape(5, d, h).requires_grad_())  # fmt: skip
    lying = {n: rows[n].detach().transpose(1, 2).contiguous().requires_grad_() for n in ("input", "output")}
    return dict(rows, **{n: t.transpose(1, 2) for n, t in lying.items()}), rows, ids


@pytest.mark.parametrize("gated, interleaved", [(True, False), (True, True), (False, False)])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.01)])
def test_transposed_matrices(dtype, tolerance, gated, interleaved):
    """As gpt-oss and Llama 4 store them: values of those in rows, gradients in the order of the tensors, and the same bits of
    each where not all are wanted."""
    for d, h, tokens in ((20, 9, 11), (301, 67, 40), (256, 144, 800)):
        tensors, rows, ids = transposed_layer(dtype, gated, d, h, tokens)
        how = dict(ids=ids, gated=gated, interleaved=interleaved)
        wide = {n: t.detach().double().requires_grad_() for n, t in rows.items()}
        y, right = experts(**tensors, **how), experts(**wide, **how)
        assert (y.double() - right).norm() < tolerance * right.norm()
        found = dict(zip(tensors, gradients(y, tensors)))
        for own, one in zip(found.items(), gradients(right, wide)):
            assert own[1].stride() == tensors[own[0]].stride(), own[0]
            assert (own[1].double() - one).norm() < tolerance * one.norm(), own[0]
        assert not found["input"][3].any() and not found["output"][3].any()
        for name in ("x", "input", "output", "input_bias", "output_bias"):
            alone = {n: t if n == name else t.detach() for n, t in tensors.items()}
            assert torch.equal(gradients(experts(**alone, **how), {name: alone[name]})[0], found[name]), name
        with torch.no_grad():
            assert (experts(**tensors, **how).double() - right).norm() < tolerance * right.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_of_transposed_matrices(dtype):
    tensors, _, ids = transposed_layer(dtype, True, 256, 144, 800)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = experts(ids=ids, **tensors, interleaved=True)
            results.append((y, *gradients(y, tensors)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other))
    one = {n: t[7:8] if n in ("x", "weights") else t for n, t in tensors.items()}
    assert torch.equal(experts(ids=ids[7:8], **one, interleaved=True)[0], results[0][0][7])


def test_memory_of_large_gradients_is_used_again(monkeypatch):
    tensors, ids = layer(torch.float32)
    expected = gradients(experts(ids=ids, **tensors, widths=WIDTHS), tensors)
    monkeypatch.setattr(_memory, "LEAST_BYTES", 1)
    make, made = _memory.mmap.mmap, []  # the system may give the address of memory that was given back again
    monkeypatch.setattr(_memory.mmap, "mmap", lambda *a, **named: made.append(a) or make(*a, **named))
    first = gradients(experts(ids=ids, **tensors, widths=WIDTHS), tensors)
    second = gradients(2 * experts(ids=ids, **tensors, widths=WIDTHS), tensors)
    assert all(torch.equal(a, e) and torch.equal(b, 2 * e) for a, b, e in zip(first, second, expected, strict=True))
    of_first, of_second = ({g.data_ptr() for g in some} for some in (first, second))
    assert not of_first & of_second
    view = first[-1].flatten()[1:]  # keeps its memory
    del first
    third = gradients(4 * experts(ids=ids, **tensors, widths=WIDTHS), tensors)
    assert len(of_first & {g.data_ptr() for g in third}) == len(of_first) - 1
    assert len(made) == 2 * len(of_first) + 1
    assert all(torch.equal(g, 4 * e) for g, e in zip(third, expected, strict=True))
    assert torch.equal(view, expected[-1].flatten()[1:])


OTHERS = [("HMOE_ISA", level) for level in hmoe.built_for() if level != hmoe.instructions()]


@pytest.mark.parametrize("variable, value", [*OTHERS, ("HMOE_BF16", "pairs"), ("HMOE_BF16", "floats")])
def test_bfloat16_by_other_kernels(variable, value):
    """In a process of its own, since kernels are chosen once. A CPU refuses those of instructions that it lacks."""
    some = "bfloat16_with_gradients or passes_without_gradients or bits or only_what or transposed"
    program = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", some, __file__]
    done = subprocess.run(program, env={**os.environ, variable: value}, capture_output=True, text=True)
    if done.returncode != 0 and "this CPU" in done.stdout:
        pytest.skip(f"{value} does not run here")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_do_not_depend_on_threads_or_batch(dtype):
    widths, d = (300, 130, 260), 256
    tensors, ids = layer(dtype, widths=widths, d=d, tokens=40)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = experts(ids=ids, **tensors, widths=widths)
            results.append((y, *gradients(y, tensors)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))
    one = {n: t[7:8] if n in ("x", "weights") else t for n, t in tensors.items()}
    y = experts(ids=ids[7:8], **one, widths=widths)
    assert torch.equal(y[0], results[0][0][7])
    own = torch.autograd.grad(y, [tensors["x"], tensors["weights"]], torch.ones_like(y))
    all_of = torch.autograd.grad(experts(ids=ids, **tensors, widths=widths), [tensors["x"], tensors["weights"]],
                                 torch.ones(40, d, dtype=dtype))  # fmt: skip
    assert all(torch.equal(a[7], b[7]) for a, b in zip(own, all_of))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_only_what_needs_gradients_gets_some(dtype):
    tensors, ids = layer(dtype, biased=True)
    full = gradients(experts(ids=ids, **tensors, widths=WIDTHS), tensors)
    frozen = {n: t.detach() if n in ("input", "output") else t for n, t in tensors.items()}
    y = experts(ids=ids, **frozen, widths=WIDTHS)
    dx, d_weights = gradients(y, {n: frozen[n] for n in ("x", "weights")})
    assert torch.equal(dx, full[0]) and torch.equal(d_weights, full[1])
    for i, name in enumerate(tensors):
        alone = {n: t if n == name else t.detach() for n, t in tensors.items()}
        y = experts(ids=ids, **alone, widths=WIDTHS)
        assert torch.equal(gradients(y, {name: alone[name]})[0], full[i]), name
    with torch.no_grad():
        assert not experts(ids=ids, **tensors, widths=WIDTHS).requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradients_that_nobody_needs_are_not_computed(dtype, monkeypatch):
    tensors, ids = layer(dtype, biased=True)
    ids[ids == 2] = -1  # an expert without tokens, whose gradients are 0
    full = dict(zip(tensors, gradients(experts(ids=ids, **tensors, widths=WIDTHS), tensors)))
    assert not full["input"][64:144].any() and full["input"][144:].any()
    asked, backward = [], hmoe._core.backward
    monkeypatch.setattr(hmoe._core, "backward", lambda *given, **how: (asked.append(given), backward(*given, **how)))
    for name in tensors:
        for chosen in ({name}, tensors.keys() - {name}):
            some = {n: t if n in chosen else t.detach() for n, t in tensors.items()}
            found = gradients(experts(ids=ids, **some, widths=WIDTHS), {n: some[n] for n in tensors if n in chosen})
            assert all(torch.equal(g, full[n]) for n, g in zip((n for n in tensors if n in chosen), found))
            *_, dx, d_weights, of_experts = asked.pop()
            wanted = ["x" in chosen, "weights" in chosen, bool(chosen - {"x", "weights"})]
            assert [t is not None for t in (dx, d_weights, of_experts)] == wanted


def test_shapes():
    tensors, ids = layer()
    tensors = {n: t.detach() for n, t in tensors.items()}
    y = experts(ids=ids, **tensors, widths=WIDTHS)
    stacked = dict(tensors, x=tensors["x"].reshape(1, 11, D))
    assert torch.equal(experts(ids=ids, **stacked, widths=WIDTHS), y.reshape(1, 11, D))
    strided = dict(tensors, x=tensors["x"].T.contiguous().T)
    assert torch.equal(experts(ids=ids, **strided, widths=WIDTHS), y)
    assert experts(ids=ids[:0], **dict(tensors, x=tensors["x"][:0], weights=tensors["weights"][:0]),
                   widths=WIDTHS).shape == (0, D)


def test_opcheck():
    widths = [8, 8, 8]  # unequal ones leave a part of what is kept as it was, which differs from call to call
    tensors, ids = layer(torch.float32, biased=True, widths=widths)
    arguments = (tensors["x"], ids, tensors["weights"], tensors["input"], tensors["output"], tensors["input_bias"],
                 tensors["output_bias"], widths, "silu", math.inf, 1.702, True, False, True)
    torch.library.opcheck(torch.ops.hmoe.experts.default, arguments)
    tensors, _, _ = transposed_layer(torch.float32, True, D, 8, 11)  # with the ids of above: all rows are used
    arguments = (tensors["x"], ids, *(tensors[n] for n in ("weights", "input", "output", "input_bias", "output_bias")), [8] * 5,
                 "silu", math.inf, 1.702, True, True, True)  # fmt: skip
    torch.library.opcheck(torch.ops.hmoe.experts.default, arguments)


def test_compile_without_a_graph_break():
    tensors, ids = layer(torch.float32)

    def step(x, weights, input, output):
        return experts(2 * x, ids, weights.softmax(-1), input, output, widths=WIDTHS).sin()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    expected = step(*tensors.values())
    y = compiled(*tensors.values())
    torch.testing.assert_close(y, expected)
    for own, right in zip(gradients(y, tensors), gradients(expected, tensors)):
        torch.testing.assert_close(own, right)


def test_autocast_and_checkpointing():
    tensors, ids = layer(torch.float32)
    expected = gradients(experts(ids=ids, **tensors, widths=WIDTHS), tensors)
    y = torch.utils.checkpoint.checkpoint(lambda x: experts(ids=ids, **dict(tensors, x=x), widths=WIDTHS),
                                          tensors["x"], use_reentrant=False)
    assert all(torch.equal(a, b) for a, b in zip(gradients(y, tensors), expected))
    with torch.autocast("cpu", torch.bfloat16):
        y = experts(ids=ids, **dict(tensors, x=tensors["x"].bfloat16()), widths=WIDTHS)
    assert y.dtype == torch.bfloat16 and all(g is not None for g in gradients(y, tensors))


def test_mistakes_are_sentences():
    tensors, ids = layer()
    with pytest.raises(hmoe.Error, match="widths are needed"):
        experts(ids=ids, **tensors)
    with pytest.raises(hmoe.Error, match=r"input weights of shape \[146, 20\] has 2920 values, needed are 2880"):
        experts(ids=ids, **tensors, widths=(24, 8, 40, 0))
    with pytest.raises(hmoe.Error, match='there is no activation "tanh"'):
        experts(ids=ids, **tensors, widths=WIDTHS, function="tanh")
    with pytest.raises(hmoe.Error, match="an expert has the width -1: needed is 0 or more"):
        experts(ids=ids, **tensors, widths=(24, 8, 40, -1))
    with pytest.raises(hmoe.Error, match="ids are torch.float32: needed are integers"):
        experts(ids=ids.float(), **tensors, widths=WIDTHS)
    with pytest.raises(hmoe.Error, match="a tensor is on meta: hmoe computes on the CPU"):
        experts(ids=ids.to("meta"), **tensors, widths=WIDTHS)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
