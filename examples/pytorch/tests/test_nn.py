# SPDX-License-Identifier: MIT
"""hmoe.nn and hmoe.prune against the same formulas in plain torch."""

import copy
import math
import os
import pathlib
import re
import signal
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

import hmoe.nn
import hmoe.prune
import hmoe.widths

D = 6
WIDTHS = [3, 1, 5, 2]

ACTIVATIONS = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
    "relu": functional.relu,
    "squared_relu": lambda z: functional.relu(z) ** 2,
    "linear": lambda z: z,
}


def make(seed=0, d=D, widths=WIDTHS, dtype=torch.float64, scale=3.0, **options):
    """A layer whose router is far from uniform and whose biases are not 0."""
    torch.manual_seed(seed)
    options = {"router": "top_p", "p": 0.6, **options}
    moe = hmoe.nn.MoE(d, widths, dtype=dtype, **options)
    with torch.no_grad():
        for name, values in moe.named_parameters():
            if name.endswith("_bias"):
                values.normal_()
            if name == "router.weight":
                values.normal_(0, scale / math.sqrt(d))
    return moe


def tokens(count=11, d=D, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, d, generator=generator, dtype=dtype)


def expert(moe, e, x):
    own, activation = moe.experts[e], moe.kind.split(".")[1]

    def bias(name):
        return getattr(own, name)[0] if moe.bias else 0

    u = x @ own.up.T + bias("up_bias")
    if moe.kind.startswith("mlp."):
        a = ACTIVATIONS[activation](u)
    else:
        g = x @ own.gate.T + bias("gate_bias")
        if activation == "gpt_oss":
            g, u = g.clamp(max=7), u.clamp(-7, 7)
            a = (u + 1) * g * torch.sigmoid(1.702 * g)
        else:
            a = ACTIVATIONS[activation](g) * u
    return a @ own.down.T + bias("down_bias")


def choose(moe, p):
    """[T, N] of bool, by sorting."""
    router, (count, experts) = moe.router, p.shape
    chosen = torch.zeros(count, experts, dtype=torch.bool)
    for t in range(count):
        order = sorted(range(experts), key=lambda e: (-p[t, e].item(), e))
        if router.select == "top_k":
            take = order[: int(router.parameter)]
        elif router.select == "threshold":
            take = [e for e in order if p[t, e].item() >= router.parameter]
        else:
            sums = torch.tensor([p[t, e].item() for e in order], dtype=torch.float64).cumsum(0)
            take = order[: int((sums < router.parameter).sum()) + 1]
        chosen[t, take] = True
    return chosen


def reference(moe, x):
    """y, probabilities, choices and logits by dense formulas: every expert on every token."""
    router = moe.router
    logits = x @ router.weight.T
    p = {"softmax": lambda z: z.softmax(1), "sigmoid": torch.sigmoid, "relu": functional.relu,
         "sqrt_softplus": lambda z: functional.softplus(z).sqrt()}[router.score](logits)  # fmt: skip
    chosen = choose(moe, p)
    kept = torch.where(chosen, p, 0.0)
    w = {"renormalized": lambda: kept / kept.sum(1, keepdim=True), "raw": lambda: kept,
         "softmax_over_selected": lambda: logits.masked_fill(~chosen, -math.inf).softmax(1),
         "sigmoid_of_logit": lambda: torch.where(chosen, torch.sigmoid(logits), 0.0),
         "equal_weights": lambda: chosen / chosen.sum(1, keepdim=True)}[router.weighting]()  # fmt: skip
    y = sum(w[:, e : e + 1] * expert(moe, e, x) for e in range(len(moe.widths)))
    return y, p, chosen, logits


def gradients(loss, moe, x):
    return torch.autograd.grad(loss, [x, *moe.parameters()], allow_unused=True)


def assert_close(a, b, tolerance=1e-9):
    for one, other in zip(a, b):
        if one is None and other is None:
            continue
        one, other = (torch.zeros_like(y) if x is None else x for x, y in ((one, other), (other, one)))
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("options", [
    dict(),
    dict(router="top_k", k=2, p=None, weighting="softmax_over_selected", bias=True),
    dict(router="top_k", k=1, p=None, weighting="raw", gated=False, activation="relu"),
    dict(router="threshold", p=None, minimum=0.55, score="sigmoid", weighting="sigmoid_of_logit", activation="gelu"),
    dict(router="top_k", k=3, p=None, score="sqrt_softplus", activation="gelu_tanh", gated=False, bias=True),
    dict(weighting="equal_weights", activation="squared_relu"),
    dict(router="top_k", k=2, p=None, activation="gpt_oss", bias=True),
    dict(activation="linear", weighting="raw"),
])  # fmt: skip
def test_output_and_gradients_are_those_of_the_formulas(options):
    moe, x = make(**options), tokens().requires_grad_()
    y = moe(x)
    expected, p, chosen, _ = reference(moe, x)
    assert_close([y], [expected])
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=y.dtype)
    assert_close(gradients((y * weights).sum(), moe, x), gradients((expected * weights).sum(), moe, x))
    with torch.no_grad():  # the pass that keeps nothing
        assert torch.equal(moe(x), y)
    _, routed = moe(x, return_routed=True)
    assert torch.equal(routed.tokens_per_expert, chosen.sum(0))
    assert_close([routed.routing.probabilities], [p])


def test_a_packed_size_has_the_same_gradients():
    """d and widths from which on the kernels pack weights; float."""
    moe = make(d=256, widths=[160, 130, 96, 200], dtype=torch.float32, router="top_k", k=2, p=None)
    x = tokens(40, 256, dtype=torch.float32).requires_grad_()
    wide = copy.deepcopy(moe).double()
    x_wide = x.detach().double().requires_grad_()
    expected = reference(wide, x_wide)[0]
    y = moe(x)
    assert_close([y.double()], [expected], 2e-5)
    own, others = gradients((y**2).sum(), moe, x), gradients((expected**2).sum(), wide, x_wide)
    for a, b in zip(own, others):
        assert (a.double() - b).abs().max() <= 1e-5 * b.abs().max()


def test_gradcheck():
    moe = make(losses={"parameter_penalty": 0.1, "router_entropy": 0.03, "z": 0.01, "importance": 0.1})
    names = [name for name, _ in moe.named_parameters()]

    def f(x, *parameters):
        y, routed = torch.func.functional_call(moe, dict(zip(names, parameters)), (x,), {"return_routed": True})
        return y, routed.loss, routed.routing.logits, routed.routing.probabilities, routed.routing.weights

    x = tokens(5).requires_grad_()
    assert torch.autograd.gradcheck(f, (x, *moe.parameters()), fast_mode=False)


def test_second_derivatives_are_refused():
    moe, x = make(), tokens().requires_grad_()
    (dx,) = torch.autograd.grad(moe(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        dx.sum().backward()


def test_second_derivatives_of_losses_are_refused():
    def router(x):
        p = x[:, :4].softmax(1)
        return hmoe.nn.Routing(p.argmax(1, True), torch.ones_like(p[:, :1]), x[:, :4], p)

    moe, x = make(router=router, p=None, losses={"z": 1.0}), tokens().requires_grad_()
    (dx,) = torch.autograd.grad(moe(x, return_routed=True)[1].loss, x, create_graph=True)
    with pytest.raises(hmoe.Error, match="losses have no second derivatives"):
        dx.sum().backward()


LOSSES = ["load_balance", "parameter_penalty", "router_entropy", "z", "importance"]


def reference_losses(p, chosen, logits):
    n, count, h = len(WIDTHS), len(p), torch.tensor(WIDTHS, dtype=torch.float64)
    f, mean_p = chosen.double().mean(0), p.mean(0)
    kept = torch.where(chosen, p, 0.0)
    shares = (kept / kept.sum(1, keepdim=True)).sum(0)
    return {
        "load_balance": n * (f * mean_p).sum(),
        "parameter_penalty": n * (h / h.mean() * f * mean_p).sum(),
        "router_entropy": -(p * p.log()).sum() / count,
        "z": (logits.logsumexp(1) ** 2).mean(),
        "importance": shares.var() / (shares.mean() ** 2 + 1e-10),
    }


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_the_formulas(name):
    moe, x = make(losses={name: 0.3}), tokens().requires_grad_()
    _, routed = moe(x, return_routed=True)
    expected = reference_losses(*reference(moe, x)[1:])[name]
    assert_close([routed.losses[name], routed.loss], [expected, 0.3 * expected])
    assert_close(gradients(routed.loss, moe, x), gradients(0.3 * expected, moe, x))


def test_statistics():
    moe = make()
    x = tokens()
    _, routed = moe(x, return_routed=True)
    chosen = reference(moe, x)[2]
    per_token = (chosen * torch.tensor(WIDTHS)).sum(1).double()
    assert_close([routed.activated_width, routed.activated_parameters], [per_token.mean(), 3 * D * per_token.mean()])


class OwnRouter(nn.Module):
    """Two experts by the sign of sums, one of them twice, one that does not exist."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.5, -0.5, 2.0], dtype=torch.float64))

    def forward(self, x):
        first = torch.where(x.sum(1) > 0, 2, 0)
        ids = torch.stack([first, torch.full_like(first, 3), first, torch.full_like(first, 9)], 1)
        values = torch.tanh(x[:, :3] * self.scale)
        return ids, torch.cat([values, values[:, :1]], 1)


def test_a_router_in_python():
    moe, x = make(router=OwnRouter(), p=None), tokens().requires_grad_()
    assert "router.scale" in moe.state_dict()
    ids, weights = moe.router(x)
    each = torch.stack([expert(moe, e, x) for e in range(4)], 1)
    expected = sum(weights[:, i : i + 1] * each[torch.arange(len(x)), ids[:, i]] for i in range(3))
    y = moe(x)
    assert_close([y], [expected])
    assert_close(gradients((y**3).sum(), moe, x), gradients((expected**3).sum(), moe, x))
    shares = torch.rand(len(x), 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)  # of each expert
    chosen = torch.tensor([[1, 3]] * len(x))
    assert_close([moe.experts(x, chosen, shares)], [shares[:, 1:2] * each[:, 1] + shares[:, 3:] * each[:, 3]])
    mask = torch.arange(len(x)) % 3 != 0
    assert torch.equal(moe(x, mask), torch.where(mask[:, None], y, 0.0))
    plain = make(router=lambda x: (torch.zeros(len(x), 1, dtype=torch.int64), torch.ones(len(x), 1)), p=None)
    assert_close([plain(x)], [expert(plain, 0, x)])
    with pytest.raises(hmoe.Error, match="need the router's logits"):
        make(router=OwnRouter(), p=None, losses={"z": 1.0})(x, return_routed=True)


def test_losses_of_a_router_in_python():
    """Weights of choices in any order, or of each expert; ids that are no expert, in place of −1."""
    moe, x = make(losses={"importance": 1.0}), tokens()
    routing = moe.route(x)
    own = moe(x, return_routed=True)[1].loss
    of_experts = torch.zeros(len(x), 4, dtype=x.dtype).scatter_add(1, routing.ids.clamp(min=0), routing.weights)
    assert int((routing.ids >= 0).sum(1).max()) <= 3  # so the last choice may go
    for ids, weights in ((routing.ids.flip(1), routing.weights.flip(1)),
                         (routing.ids.where(routing.ids >= 0, 99), routing.weights),
                         (routing.ids[:, :3], of_experts)):  # fmt: skip
        given = routing._replace(ids=ids, weights=weights)
        other = make(router=lambda x, given=given: given, p=None, losses={"importance": 1.0})
        other.experts = moe.experts
        y, routed = other(x, return_routed=True)
        assert_close([routed.loss, y], [own, reference(moe, x)[0]])
    wrong = make(router=lambda x: routing._replace(weights=of_experts[:, :2]), p=None)
    with pytest.raises(hmoe.Error, match=r"weights \(11, 2\): needed are .* weights of \[tokens, 4 experts\]"):
        wrong(x)


def test_padding_has_no_expert_and_no_share():
    losses = {"parameter_penalty": 0.1, "router_entropy": 0.03}
    moe, x = make(losses=losses), tokens(12)
    mask = torch.tensor([True, False, True, True] * 3)
    x[1] = math.nan
    x = x.requires_grad_()
    y, routed = moe(x.reshape(3, 4, D), mask.reshape(3, 4), return_routed=True)
    y_alone, alone = moe(x[mask], return_routed=True)
    assert torch.equal(y.reshape(12, D)[mask], y_alone) and not y.reshape(12, D)[~mask].any()
    assert torch.equal(routed.tokens_per_expert, alone.tokens_per_expert)
    assert_close([routed.loss, routed.activated_width], [alone.loss, alone.activated_width])
    (dx,) = torch.autograd.grad(y.sum() + routed.loss, x)
    assert not dx[~mask].any() and dx[mask].isfinite().all()


def test_bits_depend_on_the_token_alone():
    moe = make(d=256, widths=[160, 130, 96, 200], dtype=torch.float32)
    x = tokens(150, 256, dtype=torch.float32).requires_grad_()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = moe(x)
            found.append([y, *gradients((y**2).sum(), moe, x)])
            with torch.no_grad():  # another pass, whose sums have another order
                found[-1].append(moe(x))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other))
    assert torch.equal(moe(x[7:31]), found[0][0][7:31])
    with torch.no_grad():
        assert torch.equal(moe(x[7:31]), found[0][-1][7:31]) and torch.equal(moe(x[7:8]), found[0][-1][7:8])


def test_compiled_without_a_graph_break():
    moe, x = make(losses={"z": 0.1}), tokens()

    def step(x):
        y, routed = moe(x, return_routed=True)
        return y, routed.loss

    outcomes = []
    for f in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        own = x.clone().requires_grad_()
        y, loss = f(own)
        outcomes.append([y, loss, *gradients((y**2).sum() + loss, moe, own)])
        with torch.no_grad():
            outcomes[-1].extend(f(x[:3]))
    assert all(torch.equal(a, b) for a, b in zip(*outcomes))


def test_operators_are_registered_as_torch_expects():
    moe, x = make(), tokens(4)
    tensors = [t.detach().clone().requires_grad_() for t in moe.experts.tensors()]
    routing = moe.route(x)
    arguments = (x.requires_grad_(), routing.ids, routing.weights.detach().requires_grad_(), tensors, WIDTHS, moe.kind, False)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.hmoe.nn_experts_recorded, (*arguments, True), test_utils=checks)
    router = (x, moe.router.weight, None, 4, "softmax", "top_p", 0.6, "renormalized")
    torch.library.opcheck(torch.ops.hmoe.nn_route, router, test_utils=checks)


def test_bfloat16_and_autocast():
    moe = make(d=32, widths=[24, 8, 40, 16], dtype=torch.float32)
    x = tokens(20, 32, dtype=torch.float32)
    exact = moe(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = moe(x.bfloat16().requires_grad_())
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, moe(x.bfloat16().float()).bfloat16())  # parameters are float: so are the sums
    y.sum().backward()
    half = copy.deepcopy(moe).bfloat16()
    own = x.bfloat16().requires_grad_()
    y = half(own)
    assert y.dtype == torch.bfloat16 and (y.float() - exact).abs().max() < 0.05 * exact.abs().max()
    y.sum().backward()
    assert own.grad.dtype == torch.bfloat16 and all(p.grad.dtype == torch.bfloat16 for p in half.parameters())


def test_activation_checkpointing():
    moe, outcomes = make(), []
    for recompute in (False, True):
        x = tokens().requires_grad_()
        run = (lambda *a: torch.utils.checkpoint.checkpoint(moe, *a, use_reentrant=False)) if recompute else moe
        y = run(x)
        outcomes.append([y, *gradients((y**2).sum(), moe, x)])
    assert all(torch.equal(a, b) for a, b in zip(*outcomes))


def test_fork_while_threads_exist():
    moe = make(d=256, widths=[160, 130, 96, 200], dtype=torch.float32)
    x = tokens(100, 256, dtype=torch.float32)  # so few that torch.equal starts no OpenMP threads, which wait for ever
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            expected = moe(x)
            child = os.fork()
            if child == 0:
                signal.alarm(60)  # instead of waiting for ever
                os._exit(0 if torch.equal(moe(x), expected) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert torch.equal(moe(x), expected)
    finally:
        torch.set_num_threads(before)


def test_legal_edges():
    moe = make(widths=[3, 0, 5, 2], bias=True)
    assert moe(tokens(0)).shape == (0, D)
    x = tokens().requires_grad_()
    y, expected = moe(x), reference(moe, x)[0]
    assert_close([y], [expected])  # an expert of width 0 returns its bias
    assert_close(gradients(y.sum(), moe, x), gradients(expected.sum(), moe, x))
    nobody = make(router=lambda x: (torch.full((len(x), 2), -1), torch.ones(len(x), 2)), p=None)
    y = nobody(x)
    assert not y.any() and not torch.autograd.grad(y.sum(), x)[0].any()
    frozen = make()
    frozen.requires_grad_(False)
    assert_close(torch.autograd.grad(frozen(x).sum(), x), torch.autograd.grad(reference(frozen, x)[0].sum(), x))


def test_gradients_that_nobody_needs_are_not_computed(monkeypatch):
    moe, x = make(bias=True), tokens().requires_grad_()
    everything = {"x": x, **dict(moe.named_parameters())}
    full = dict(zip(everything, gradients((moe(x) ** 2).sum(), moe, x)))
    calls = {}
    for name in ("run_bank_backward", "run_router_backward"):
        own = getattr(hmoe._core, name)
        monkeypatch.setattr(hmoe._core, name, lambda *given, n=name, f=own: (calls.update({n: given}), f(*given)))
    for chosen in (["x"], ["experts.1.up"], ["experts.0.down", "experts.3.gate_bias"], ["router.weight"],
                   ["router.weight", "experts.2.gate"], ["x", "experts.3.down_bias"]):  # fmt: skip
        for name, values in everything.items():
            values.requires_grad_(name in chosen)
        calls.clear()
        found = torch.autograd.grad((moe(x) ** 2).sum(), [everything[name] for name in chosen])
        assert all(torch.equal(g, full[name]) for name, g in zip(chosen, found))
        routed = "x" in chosen or "router.weight" in chosen
        assert [a != 0 for a in calls["run_bank_backward"][9:11]] == ["x" in chosen, routed]
        assert ("run_router_backward" in calls) == routed
        if routed:
            addresses = calls["run_router_backward"][13:15]
            assert [a != 0 for a in addresses] == ["x" in chosen, "router.weight" in chosen]


@pytest.mark.parametrize("change, message", [
    (dict(router="top_k", k=5, p=None), "k must be 1 to 4"),
    (dict(p=1.5), r"p must be in \(0, 1\]"),
    (dict(router="best"), "known are top_k, top_p, threshold"),
    (dict(k=2), "takes p, not k"),
    (dict(activation="swish"), "known are silu, gelu, gelu_tanh, relu, squared_relu, linear and gpt_oss"),
    (dict(gated=False, activation="gpt_oss"), "known are silu, gelu, gelu_tanh, relu, squared_relu and linear"),
    (dict(score="tanh"), "known are softmax, sigmoid, sqrt_softplus and relu"),
    (dict(losses={"balance": 1.0}), "known are load_balance"),
    (dict(widths=[]), "at least one expert"),
])  # fmt: skip
def test_mistakes_are_errors_that_name_the_remedy(change, message):
    with pytest.raises(hmoe.Error, match=message):
        make(**change)


def test_mistakes_in_a_pass():
    moe = make()
    with pytest.raises(hmoe.Error, match="a token has 5 values, the layer's d_model is 6"):
        moe(tokens(3, 5))
    with pytest.raises(hmoe.Error, match="logit of token 1 for expert 0 is nan"):
        moe(torch.tensor([[0.0] * D, [math.nan] * D], dtype=torch.float64))
    with pytest.raises(hmoe.Error, match="tokens are on meta: hmoe.nn computes on the CPU"):
        moe(tokens(3).to("meta"))
    wrong = make(router=lambda x: (torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 1)), p=None)
    with pytest.raises(hmoe.Error, match=r"ids are \(2, 1\)"):
        wrong(tokens(3))
    narrow = make(router=hmoe.nn.Router(4, 4, "top_k", k=2, dtype=torch.float64), p=None)
    with pytest.raises(hmoe.Error, match=r"weight is \(4, 4\) and x \(3, 6\)"):
        narrow(tokens(3))
    with pytest.raises(hmoe.Error, match=r"weight is torch.float64 and x torch.float32"):
        torch.ops.hmoe.nn_route(tokens(3).float(), moe.router.weight, None, 4, "softmax", "top_p", 0.6, "renormalized")
    with pytest.raises(hmoe.Error, match=r"the mask is \(2,\) of torch.bool, needed is \(3,\)"):
        moe.router(tokens(3), torch.ones(2))
    routing = moe.route(tokens(3))
    with pytest.raises(hmoe.Error, match=r"x is \(3, 1, 6\): needed is \[tokens, d_model\]"):
        moe.experts(tokens(3).reshape(3, 1, D), routing.ids, routing.weights)
    with pytest.raises(hmoe.Error, match="ids are torch.float32: needed are integers"):
        moe.experts(tokens(3), routing.ids.float(), routing.weights)
    with pytest.raises(hmoe.Error, match="an expert has the width -1"):
        make(widths=[3, -1])


def test_a_mask_of_numbers_and_another_default_device():
    moe, x = make(losses={"z": 0.1}), tokens().requires_grad_()
    mask = torch.arange(len(x)) % 3
    assert torch.equal(moe.router(x, mask).ids, moe.router(x, mask != 0).ids)
    y, routed = moe(x, return_routed=True)
    expected = gradients(y.sum() + routed.loss, moe, x)
    torch.set_default_device("meta")
    try:
        y, routed = moe(x, return_routed=True)
        found = gradients(y.sum() + routed.loss, moe, x)
        pruned = hmoe.prune.neurons(moe, calibrated(moe, x), 0.5)
    finally:
        torch.set_default_device(None)
    assert all(torch.equal(a, b) for a, b in zip(found, expected))
    assert pruned.experts[0].down.device.type == "cpu"


def test_widths():
    assert hmoe.widths.arithmetic(8, 12288) == [864, 1056, 1248, 1440, 1632, 1824, 2016, 2208]
    assert hmoe.widths.uniform(4, 12) == [3, 3, 3, 3]
    assert hmoe.widths.geometric(3, 14) == [2, 4, 8]
    assert hmoe.widths.hybrid(4, 16) == [2, 2, 4, 8]
    assert hmoe.widths.list_of([1, 3], 8) == [2, 6]
    with pytest.raises(hmoe.Error, match="possible are 4 or 8"):
        hmoe.widths.uniform(4, 6)


def test_a_checkpoint_goes_through_the_loader_of_the_library(tmp_path):
    path = tmp_path / "layers.safetensors"
    one, two = make(1, widths=[3, 0, 5], bias=True), make(2, gated=False, activation="relu", dtype=torch.float32)
    hmoe.nn.save(path, {"layers.0.": one, "layers.1.": two}, what="trained", by="a test")
    first, second = hmoe.nn.read_manifest(path)
    assert [e["kind"] for e in first["experts"]] == ["glu.silu", "vector", "glu.silu"]
    assert [e["width"] for e in second["experts"]] == WIDTHS and second["experts"][0]["kind"] == "mlp.relu"
    assert first["tensors"] == ["router.weight"] and second["d_model"] == D
    for prefix, moe in (("layers.0.", one), ("layers.1.", two)):
        other = copy.deepcopy(moe)
        other.reset_parameters()
        hmoe.nn.load(path, other, prefix)
        for (name, a), (_, b) in zip(moe.state_dict().items(), other.state_dict().items()):
            assert torch.equal(a, b), name
    half = copy.deepcopy(two).bfloat16()
    half.reset_parameters()
    hmoe.nn.load(path, half, "layers.1.")
    assert torch.equal(half.experts[2].down, two.experts[2].down.bfloat16())
    with pytest.raises(hmoe.Error, match="expert 0 has width 3, that of the layer to load 4"):
        hmoe.nn.load(path, make(widths=[4, 0, 5], bias=True), "layers.0.")


def test_the_file_is_that_of_the_convention(tmp_path):
    """Read by a program that shares no line with the library's."""
    pytest.importorskip("safetensors")
    sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "scripts"))
    try:
        import ragged_checkpoint
    finally:
        sys.path.pop(0)
    moe = make(bias=True)
    hmoe.nn.save(tmp_path / "moe.safetensors", moe, what="pruned", by="hand")
    (layer,) = ragged_checkpoint.read(str(tmp_path / "moe.safetensors"))
    assert layer["reason"] == {"what": "pruned", "by": "hand", "from": ""}
    for e, own in enumerate(layer["experts"]):
        for name, values in own["tensors"].items():
            assert torch.equal(torch.from_numpy(values), getattr(moe.experts[e], name).detach()), name
    assert torch.equal(torch.from_numpy(layer["tensors"]["router.weight"]), moe.router.weight.detach())
    ragged_checkpoint.write(str(tmp_path / "copy.safetensors"), [layer])
    other = make(3, bias=True)
    hmoe.nn.load(tmp_path / "copy.safetensors", other)
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), moe.state_dict().values()))


def calibrated(moe, x):
    sums = hmoe.prune.Calibration(moe)
    with sums.watch():
        (moe(x) ** 2).sum().backward()
    return sums


@pytest.mark.parametrize("gated", [True, False])
def test_importance_is_that_of_the_formulas(gated):
    moe, x = make(gated=gated, bias=True, activation="gelu"), tokens(30)
    sums = calibrated(moe, x)
    y, p, chosen, _ = reference(moe, x)
    kept = torch.where(chosen, p, 0.0)
    w = kept / kept.sum(1, keepdim=True)
    for e, own in enumerate(moe.experts):
        rows = chosen[:, e]
        n, u, g = rows.sum(), w[rows, e : e + 1], w[rows, e : e + 1] * 2 * y[rows]
        a = functional.gelu(x[rows] @ (own.gate if gated else own.up).T + (own.gate_bias if gated else own.up_bias))
        a = a * (x[rows] @ own.up.T + own.up_bias) if gated else a
        share, norms = n.item() / len(x), own.down.square().sum(0)
        expected = {
            "magnitude_times_activation": share * norms.sqrt() * a.abs().mean(0),
            "squared_contribution": share * norms * (u * a).square().mean(0),
            "heapr": share * 0.5 * a.square().mean(0) * (g @ own.down).square().mean(0),
        }
        for name, values in expected.items():
            assert_close([sums.importance(name)[e]], [values.detach()])
        assert sums.loads[e] == share


def test_pruned_layers_are_narrower_layers():
    moe, x = make(widths=[6, 6, 6, 6], bias=True), tokens(30)
    sums = calibrated(moe, x)
    half = hmoe.prune.neurons(moe, sums, 0.5, importance="squared_contribution")
    assert sum(half.widths) == 12 and len(set(half.widths)) > 1
    # The cut neurons are the least important ones of all experts.
    values = sums.importance("squared_contribution")
    chosen = sums.within(values, 0.5)
    least_kept = min(float(values[e][i]) for e in range(4) for i in chosen[e])
    assert all(float(values[e][i]) <= least_kept for e in range(4) for i in range(6) if i not in chosen[e])
    # The layer computes what the whole one does with these neurons' outputs set to 0.
    masked = copy.deepcopy(moe)
    with torch.no_grad():
        for e, own in enumerate(masked.experts):
            own.down[:, [i for i in range(6) if i not in chosen[e]]] = 0
    assert_close([half(x)], [masked(x)])
    assert moe.widths == [6, 6, 6, 6] and half.experts[0].gate.shape == (half.widths[0], D)
    none = hmoe.prune.neurons(moe, sums, 0.0)
    assert none.widths == [0, 0, 0, 0]
    assert_close([none(x)], [reference(none, x)[0]])
    own = x.clone().requires_grad_()
    half(own).sum().backward()  # and trains
    assert half.experts[0].down.grad.shape == half.experts[0].down.shape
    two = hmoe.prune.take_neurons(moe, [[4, 1], [], [0], []])
    assert torch.equal(two.experts[0].gate, moe.experts[0].gate[[4, 1]])
    assert torch.equal(two.experts[0].down, moe.experts[0].down[:, [4, 1]])
    with pytest.raises(hmoe.Error, match="neurons 7 to 7 of expert 0"):
        hmoe.prune.take_neurons(moe, [[7], [], [], []])
    with pytest.raises(hmoe.Error, match="heapr needs gradients"):
        empty = hmoe.prune.Calibration(moe)
        empty.add(x)
        empty.importance("heapr")
    with pytest.raises(hmoe.Error, match="give ids and weights"):
        hmoe.prune.Calibration(moe.experts).add(x)
    by_hand, by_name = hmoe.prune.Calibration(moe.experts), hmoe.prune.Calibration(moe.experts)
    with torch.no_grad():
        routing, dy = moe.route(x), 2 * moe(x)
    by_hand.add(x, routing.ids, routing.weights, dy)
    assert all(torch.equal(a, b) for a, b in zip(by_hand.importance("heapr"), sums.importance("heapr")))
    with by_name.watch():
        moe.experts(x=x, ids=routing.ids, weights=routing.weights)
    assert by_name.loads == sums.loads


def test_the_walkthrough_prints_what_the_readme_shows(capsys):
    """But for digits, which depend on torch's random numbers and on the CPU."""
    root = pathlib.Path(__file__).parents[1]
    sys.path.insert(0, str(root / "walkthrough"))
    try:
        import train_and_prune
    finally:
        sys.path.pop(0)
    threads = torch.get_num_threads()
    try:
        seen = train_and_prune.main()
    finally:
        torch.set_num_threads(threads)
    page = (root / "README.md").read_text(encoding="utf-8").split("](walkthrough/train_and_prune.py)")[1]
    shown = re.search(r"```text\n(.*?)```", page, re.DOTALL)[1]

    def words(text):
        return re.sub(r"\d+(\.\d+)?", "N", text)

    assert words(capsys.readouterr().out) == words(shown)
    assert seen["last"] < 0.75 * seen["first"] and seen["cut"] < seen["first"] and seen["tuned"] < seen["cut"]
    assert seen["same"]
