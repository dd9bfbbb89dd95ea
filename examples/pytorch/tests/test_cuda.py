# SPDX-License-Identifier: MIT
"""CUDA tensors, on a machine with a GPU and a package that was built for it: against the operators for CPUs, which other tests
hold against torch. Elsewhere all of it is skipped, with the reason."""

import math

import pytest
import torch

import hmoe
from hmoe import _cuda_ops
from hmoe.ops import experts

if _cuda_ops._cuda is None:
    REASON = "this build of hmoe has no hmoe._cuda: build it with -C cmake.define.HMOE_PYTHON_CUDA=ON"
elif not torch.cuda.is_available():
    REASON = "torch finds no GPU"
elif torch.cuda.get_device_capability() < (8, 0):
    REASON = f"{torch.cuda.get_device_name()} has a compute capability below 8.0"
else:
    REASON = None
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

WIDTHS = (24, 8, 0, 40, 1)
D = 32
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 0.03}


def layer(dtype, gated=True, biased=False, widths=WIDTHS, d=D, tokens=50, choices=2):
    """Tensors on the CPU; ids of other ranks among the choices."""
    torch.manual_seed(3)
    lanes = 2 if gated else 1
    shapes = dict(x=(tokens, d), weights=(tokens, choices), input=(lanes * sum(widths), d), output=(sum(widths) * d,))
    if biased:
        shapes |= dict(input_bias=(lanes * sum(widths),), output_bias=(len(widths), d))
    scales = dict(input=d**-0.5, output=0.3)
    tensors = {name: (scales.get(name, 1) * torch.randn(shape)).to(dtype) for name, shape in shapes.items()}
    return tensors, torch.randint(-1, len(widths) + 1, (tokens, choices))


def moved(tensors, device):
    return {name: t.to(device).requires_grad_() for name, t in tensors.items()}


def gradients(y, tensors):
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(y)
    return torch.autograd.grad(y, list(tensors.values()), dy)


def near(own, right, dtype):
    right = right.float()
    scale = max(1, right.abs().max().item()) if right.numel() else 1
    torch.testing.assert_close(own.float().cpu(), right, rtol=0, atol=TOLERANCE[dtype] * scale)


FORMS = [(f, True, m) for f in ("silu", "gelu", "gelu_tanh", "relu", "relu2", "linear", "gpt_oss", "silu_then_limit", "softcapped")
         for m in (math.inf, 0.6) if f != "softcapped" or m < 1]  # fmt: skip
FORMS += [(f, False, math.inf) for f in ("silu", "gelu", "gelu_tanh", "relu", "relu2", "linear")]


@pytest.mark.parametrize("function, gated, limit", FORMS)
def test_values_and_gradients_are_those_of_the_cpu(function, gated, limit):
    for interleaved in (False, True) if gated else (False,):
        tensors, ids = layer(torch.float32, gated, biased=True)
        how = dict(widths=WIDTHS, function=function, limit=limit, gated=gated, interleaved=interleaved)
        there, here = moved(tensors, "cuda"), moved(tensors, "cpu")
        y, right = experts(ids=ids.cuda(), **there, **how), experts(ids=ids, **here, **how)
        near(y, right, torch.float32)
        for own, one in zip(gradients(y, there), gradients(right, here)):
            near(own, one, torch.float32)


@pytest.mark.parametrize("widths, d, tokens, choices", [((64, 33), 200, 300, 2), ((5, 9), 13, 7, 3), ((700, 131), 256, 3, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sizes_and_types(dtype, widths, d, tokens, choices):
    tensors, ids = layer(dtype, widths=widths, d=d, tokens=tokens, choices=choices)
    wide = {name: t.float() for name, t in tensors.items()}
    there, here = moved(tensors, "cuda"), moved(wide, "cpu")
    y, right = experts(ids=ids.cuda(), **there, widths=widths), experts(ids=ids, **here, widths=widths)
    assert y.dtype == dtype and y.is_cuda
    near(y, right, dtype)
    own = gradients(y, there)
    assert all(g.dtype == dtype for g in own)
    for a, b in zip(own, gradients(right, here)):
        near(a, b, dtype)


def test_bits_do_not_depend_on_the_batch_or_on_gradients():
    tensors, ids = layer(torch.bfloat16, tokens=400)
    there, ids = moved(tensors, "cuda"), ids.cuda()
    y = experts(ids=ids, **there, widths=WIDTHS)
    with torch.no_grad():
        assert torch.equal(experts(ids=ids, **there, widths=WIDTHS), y)
        one = {n: t[7:8] if n in ("x", "weights") else t for n, t in there.items()}
        assert torch.equal(experts(ids=ids[7:8], **one, widths=WIDTHS)[0], y[7])
    assert all(torch.equal(a, b) for a, b in zip(gradients(experts(ids=ids, **there, widths=WIDTHS), there), gradients(y, there)))


def test_passes_run_on_the_current_stream():
    tensors, ids = layer(torch.float32, tokens=2000)
    right = experts(ids=ids, **tensors, widths=WIDTHS)
    there, ids = {n: t.cuda() for n, t in tensors.items()}, ids.cuda()
    experts(ids=ids, **there, widths=WIDTHS)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # what is queued on the default stream would run before it
        x = there["x"] * 2
        y = experts(ids=ids, **dict(there, x=x / 2), widths=WIDTHS)
        again = [experts(ids=ids, **dict(there, x=y), widths=WIDTHS) for _ in range(3)]
    assert not stream.query()  # nothing has waited
    stream.synchronize()
    near(y, right, torch.float32)
    assert all(torch.equal(again[0], other) for other in again)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU only")
def test_a_second_gpu():
    tensors, ids = layer(torch.float32)
    there = moved(tensors, "cuda:1")
    before = torch.cuda.current_device()
    y = experts(ids=ids.to("cuda:1"), **there, widths=WIDTHS)
    gradients(y, there)
    assert torch.cuda.current_device() == before and torch.empty(1, device="cuda").device.index == before
    near(y, experts(ids=ids, **tensors, widths=WIDTHS), torch.float32)
    with pytest.raises(hmoe.Error, match="tensors are on cuda:1 and on cuda:0"):
        experts(ids=ids.to("cuda:0"), **there, widths=WIDTHS)


def test_nothing_to_do():
    tensors, ids = layer(torch.float32, biased=True)
    empty = {n: t[:0] if n in ("x", "weights") else t for n, t in tensors.items()}
    there = moved(empty, "cuda")
    y = experts(ids=ids[:0].cuda(), **there, widths=WIDTHS)
    assert y.shape == (0, D) and all((g == 0).all() for g in gradients(y, there))
    there = moved(tensors, "cuda")
    y = experts(ids=torch.full_like(ids, -1).cuda(), **there, widths=WIDTHS)
    assert (y == 0).all() and all((g == 0).all() for g in gradients(y, there))


def test_memory_is_torchs():
    tensors, ids = layer(torch.float32, tokens=3000)
    there, ids = {n: t.cuda() for n, t in tensors.items()}, ids.cuda()
    experts(ids=ids, **there, widths=WIDTHS)
    torch.cuda.synchronize()
    before, free = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[0]
    for _ in range(20):
        experts(ids=ids, **there, widths=WIDTHS)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before and torch.cuda.mem_get_info()[0] == free


def test_a_cuda_graph_repeats_a_pass():
    tensors, ids = layer(torch.bfloat16)
    there, ids = {n: t.cuda() for n, t in tensors.items()}, ids.cuda()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):  # once before: it copies the table of the experts
        experts(ids=ids, **there, widths=WIDTHS)
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = experts(ids=ids, **there, widths=WIDTHS)
    for scale in (1, -2):
        there["x"].mul_(scale)
        graph.replay()
        assert torch.equal(y, experts(ids=ids, **there, widths=WIDTHS))


def test_compile_and_opcheck():
    tensors, ids = layer(torch.float32)
    there, ids = moved(tensors, "cuda"), ids.cuda()

    def step(x, weights, input, output):
        return experts(2 * x, ids, weights.softmax(-1), input, output, widths=WIDTHS).sin()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    expected, y = step(*there.values()), compiled(*there.values())
    torch.testing.assert_close(y, expected)
    for own, right in zip(gradients(y, there), gradients(expected, there)):
        torch.testing.assert_close(own, right)
    # Equal widths, and experts for all choices: else a part of what is kept stays as it was, which differs from call to call.
    tensors, ids = layer(torch.float32, widths=(8, 8, 8))
    there = moved(tensors, "cuda")
    ids = torch.stack([torch.randperm(3)[:2] for _ in ids]).cuda()
    torch.library.opcheck(torch.ops.hmoe.experts.default, (
        there["x"], ids, there["weights"], there["input"], there["output"], None, None, [8, 8, 8], "silu", math.inf, 1.702, True,
        False, True))  # fmt: skip


def test_mistakes_are_sentences():
    tensors, ids = layer(torch.float32)
    there = {n: t.cuda() for n, t in tensors.items()}
    with pytest.raises(hmoe.Error, match="experts: tensors are on cuda:0 and on cpu: move all to one device"):
        experts(ids=ids, **there, widths=WIDTHS)
    with pytest.raises(hmoe.Error, match="experts of torch.float64 on cuda:0: there are kernels for float32 and bfloat16"):
        experts(ids=ids.cuda(), **{n: t.double() for n, t in there.items()}, widths=WIDTHS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family, name", [("mixtral", "MixtralExperts"), ("qwen3_moe", "Qwen3MoeExperts"),
                                          ("gpt_oss", "GptOssExperts")])  # fmt: skip
def test_experts_of_transformers(family, name, dtype):
    pytest.importorskip("transformers", minversion="5")
    import test_transformers as cpu  # what builds modules of all families

    file = f"modeling_{family}"
    module = cpu.build(family, file, name, dtype).cuda()
    x, ids, weights = (t.detach().cuda() for t in cpu.inputs(module, dtype))
    x.requires_grad_(), weights.requires_grad_()
    results = {}
    for implementation in ("eager", "hmoe"):
        module.config._experts_implementation = implementation
        y = module(x, ids, weights)
        leaves = [x, weights, *module.parameters()]
        results[implementation] = [y, *torch.autograd.grad(y.float().square().sum(), leaves)]
        with torch.no_grad():
            results[implementation].append(module(x, ids, weights))
    for a, b in zip(results["hmoe"], results["eager"]):
        error = (a.float() - b.float()).norm() / b.float().norm().clamp(min=1e-6)
        assert error < (1e-4 if dtype == torch.float32 else 0.04)


if __name__ == "__main__":
    raise SystemExit(pytest.main(["-rs", __file__]))
