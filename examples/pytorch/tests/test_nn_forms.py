# SPDX-License-Identifier: MIT
"""Forms of hmoe.nn's layers: kinds of experts, shared experts, packed weights, nested widths."""

import copy
import gc
import pickle

import pytest
import torch
from test_nn import ACTIVATIONS, D, WIDTHS, assert_close, calibrated, gradients, make, reference, reference_losses, tokens

import hmoe.nn
import hmoe.prune
from hmoe import _nn_ops

KINDS = ["glu.silu", "identity", "mlp.relu", "constant", "glu.silu", "zero", "constant"]
MIXED = dict(widths=[3, 0, 2, 0, 5, 0, 0], kinds=KINDS, router="top_k", k=4, p=None, bias=True)


def output(moe, e, x):
    own, (form, _, activation) = moe.experts[e], moe.kinds[e].partition(".")
    if form in ("identity", "zero"):
        return x if form == "identity" else 0 * x
    if form == "constant":
        a = (x @ own.mix.T).softmax(1)
        return a[:, :1] * x + a[:, 1:] * own.constant
    act, u = ACTIVATIONS[activation], x @ own.up.T + own.up_bias
    hidden = act(x @ own.gate.T + own.gate_bias) * u if form == "glu" else act(u)
    return hidden @ own.down.T + own.down_bias


def by_formula(moe, x):
    routing = moe.route(x)
    each = torch.stack([output(moe, e, x) for e in range(len(moe.widths))], 1)
    rows = torch.arange(len(x))
    return sum(routing.weights[:, i : i + 1] * each[rows, routing.ids[:, i]] for i in range(routing.ids.shape[1]))


def test_experts_of_several_kinds():
    moe, x = make(**MIXED), tokens(40).requires_grad_()
    y, expected = moe(x), by_formula(moe, x)
    assert_close([y], [expected])
    assert_close(gradients((y**2).sum(), moe, x), gradients((expected**2).sum(), moe, x))
    _, routed = moe(x, return_routed=True)
    assert routed.tokens_per_expert.min() > 0
    constants = 3 * D * int(routed.tokens_per_expert[[3, 6]].sum())
    neurons = routed.tokens_per_expert[[0, 2, 4]] @ torch.tensor([3 * 3 * D + 6 + D, 2 * 2 * D + 2 + D, 3 * 5 * D + 10 + D])
    assert_close([routed.activated_parameters], [(constants + neurons.double()) / 40])
    with torch.no_grad():
        y = moe(x)
        assert torch.equal(moe(x[7:9]), y[7:9])
        mask = torch.arange(len(x)) % 3 != 0
        assert torch.equal(moe(x, mask), torch.where(mask[:, None], y, 0.0))
        half = copy.deepcopy(moe).bfloat16()
        assert (half(x.bfloat16()) - y).abs().max() < 0.05 * y.abs().max()
    with pytest.raises(hmoe.Error, match="of several kinds .* this is for those of one kind"):
        hmoe.prune.Calibration(moe)
    only = make(widths=[0, 0], kinds=["identity", "constant"], router="top_k", k=2, p=None)
    assert_close([only(x)], [by_formula(only, x)])


def test_kinds_are_compiled_without_a_graph_break():
    moe, outcomes = make(**MIXED, shared=[2], shared_gate=True), []
    for f in (moe, torch.compile(moe, fullgraph=True, backend="aot_eager")):
        x = tokens().requires_grad_()
        y = f(x)
        outcomes.append([y, *gradients((y**2).sum(), moe, x)])
    assert all(torch.equal(a, b) for a, b in zip(*outcomes))


def test_kinds_in_a_file(tmp_path):
    moe, path = make(**MIXED), tmp_path / "kinds.safetensors"
    hmoe.nn.save(path, moe)
    (layer,) = hmoe.nn.read_manifest(path)
    assert [e["kind"] for e in layer["experts"]] == KINDS and layer["experts"][3]["tensors"] == ["mix", "constant"]
    other = make(5, **MIXED)
    hmoe.nn.load(path, other)
    assert all(torch.equal(a, b) for a, b in zip(moe.state_dict().values(), other.state_dict().values()))
    with pytest.raises(hmoe.Error, match="expert 1 is of the kind .identity., that of the layer to load .zero."):
        hmoe.nn.load(path, make(**{**MIXED, "kinds": [KINDS[0], "zero", *KINDS[2:]]}))


@pytest.mark.parametrize("change, message", [
    (dict(kinds=["glu.silu"]), "1 kinds for 4 experts"),
    (dict(kinds="identity"), "expert 0 is of the kind identity, which has no neurons: its width is 3, needed is 0"),
    (dict(kinds="copy"), "known are glu.ACTIVATION, mlp.ACTIVATION, identity, zero, constant"),
    (dict(kinds="mlp.gpt_oss"), "known are silu"),
    (dict(shared_gate=True), "shared_gate is for shared experts"),
])  # fmt: skip
def test_mistakes_in_kinds(change, message):
    with pytest.raises(hmoe.Error, match=message):
        make(**change)


@pytest.mark.parametrize("gate", [False, True])
def test_shared_experts(gate):
    losses = {"parameter_penalty": 0.1, "router_entropy": 0.03}
    moe, x = make(shared=[4, 2], shared_gate=gate, losses=losses), tokens().requires_grad_()
    assert moe.widths == [*WIDTHS, 4, 2] and moe.router.weight.shape == (4, D)
    assert ("router.shared_gate" in moe.state_dict()) == gate
    routed_part, p, chosen, logits = reference_of_routed(moe, x)
    shares = torch.sigmoid(x @ moe.router.shared_gate.T) if gate else torch.ones(len(x), 2, dtype=x.dtype)
    expected = routed_part + sum(shares[:, j : j + 1] * glu(moe.experts[4 + j], x) for j in range(2))
    y, routed = moe(x, return_routed=True)
    assert_close([y], [expected])
    loss = sum(losses[name] * reference_losses(p, chosen, logits)[name] for name in losses)
    assert_close([routed.loss], [loss])
    assert_close(gradients((y**2).sum() + routed.loss, moe, x), gradients((expected**2).sum() + loss, moe, x))
    assert routed.tokens_per_expert.tolist() == [*chosen.sum(0).tolist(), len(x), len(x)]
    mask = torch.arange(len(x)) % 3 != 0
    assert torch.equal(moe(x, mask), torch.where(mask[:, None], y, 0.0))
    by_hand = make(shared=[4], router=lambda x: (torch.full((len(x), 1), 4), torch.ones(len(x), 1)), p=None)
    assert_close([by_hand(x)], [glu(by_hand.experts[4], x)])  # 4 is no routed expert


def glu(own, x):
    return (torch.nn.functional.silu(x @ own.gate.T) * (x @ own.up.T)) @ own.down.T


def reference_of_routed(moe, x):
    class Routed:  # the layer without its shared experts
        router, experts, kind, bias, widths = moe.router, moe.experts, moe.kind, moe.bias, moe.widths[: moe.routed]

    return reference(Routed, x)


def packable(dtype=torch.float32, **options):
    return make(d=64, widths=[48, 0, 96, 16], dtype=dtype, router="top_k", k=2, p=None, **options)


@pytest.mark.parametrize("dtype, format, tolerance", [
    (torch.float32, "f32", 1e-6), (torch.float32, "bf16", 2e-2), (torch.float32, "q8_channel", 2e-2), (torch.float32, "q4", 0.2),
    (torch.bfloat16, "bf16", 2e-2),
])  # fmt: skip
def test_packed_layers(dtype, format, tolerance):
    moe, x = packable(dtype, bias=True), tokens(30, 64, dtype=dtype)
    packed = moe.packed(format)
    assert packed.widths == moe.widths and not list(packed.experts.parameters()) and packed.router is moe.router
    with torch.no_grad():
        y, expected = packed(x), moe(x)
        assert y.dtype == dtype and 0 <= (y - expected).float().norm() <= tolerance * expected.float().norm()
        assert torch.equal(packed(x[3:4]), y[3:4]) and torch.equal(copy.deepcopy(packed)(x), y)
        compiled = torch.compile(packed, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(x), y)
        for values in moe.experts.parameters():
            values.zero_()
        assert torch.equal(packed(x), y)  # they are copies
    assert packed.experts.bytes >= {"f32": 4, "bf16": 2, "q8_channel": 1, "q4": 0.5}[format] * 3 * 64 * 160


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "gpt_oss"])
def test_packed_experts_without_gates(activation):
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 2e-2)):
        moe, x = packable(dtype, gated=False, activation=activation, bias=True), tokens(30, 64, dtype=dtype)
        with torch.no_grad():
            y, expected = moe.packed("f32")(x), moe(x)
            assert (y - expected).float().norm() <= tolerance * expected.float().norm()
            for format, tolerance_of in (("bf16", 2e-2), ("q8_channel", 3e-2), ("q4", 0.3)):
                packed = moe.packed(format)
                assert 0 < (packed(x) - y).float().norm() <= tolerance_of * y.float().norm() or format == "bf16"
                assert torch.equal(packed(x[3:4]), packed(x)[3:4])
    mixed = make(d=64, widths=[48, 24, 16], kinds=["glu.silu", f"mlp.{activation}", "mlp.relu"], dtype=torch.float32)
    with torch.no_grad():
        assert_close([mixed.packed("f32")(x.float())], [mixed(x.float())], 1e-5)


def test_packed_layers_are_for_inference():
    moe, x = packable(), tokens(5, 64, dtype=torch.float32)
    gc.collect()
    before, packed = len(_nn_ops._packed), moe.packed("f32")
    with pytest.raises(hmoe.Error, match="packed weights are for inference"):
        packed(x).sum().backward()
    with pytest.raises(hmoe.Error, match="packed weights are not saved"):
        pickle.dumps(packed)
    with pytest.raises(hmoe.Error, match="no file of their own"):
        hmoe.nn.save("nowhere", packed)
    with pytest.raises(hmoe.Error, match="the experts are packed"):
        hmoe.prune.nested(packed, [1, 0, 1, 1])
    with pytest.raises(hmoe.Error, match="known are f32, bf16, q8_channel, q4"):
        moe.packed("q9")
    assert len(_nn_ops._packed) == before + 1
    called = []
    packed.register_forward_hook(lambda *_: called.append(1))
    moe(x)
    assert not called and not moe._forward_hooks  # a layer of its own
    del packed
    gc.collect()
    assert len(_nn_ops._packed) == before
    kinds = ["glu.silu", "identity", "constant", "glu.silu"]
    mixed = make(d=64, widths=[48, 0, 0, 16], kinds=kinds, dtype=torch.float32)
    with torch.no_grad():
        fast = mixed.packed("f32")
        assert_close([fast(x)], [mixed(x)], 1e-5)
        assert copy.deepcopy(fast).experts._held[_nn_ops.WITHOUT_NEURONS] is fast.experts._held[_nn_ops.WITHOUT_NEURONS]
    with pytest.raises(hmoe.Error, match="ids are torch.int32"):
        torch.ops.hmoe.nn_simple(x, torch.zeros(5, 1, dtype=torch.int32), x[:, :1].contiguous(), [], "identity")


def test_nested_layers():
    moe, x = make(widths=[6, 4, 5, 6], bias=True), tokens(30)
    sums = calibrated(moe, x)
    ordered, importance = hmoe.prune.order_by_importance(moe, sums.importance("heapr"))
    assert_close([ordered(x)], [moe(x)])
    assert all((own[:-1] >= own[1:]).all() for own in importance)
    widths = sums.widths_within(importance, 0.5)
    assert widths == hmoe.prune.neurons(moe, sums, 0.5, importance="heapr").widths and 0 < sum(widths) <= 21 * 0.5
    half = hmoe.prune.nested(ordered, widths)
    own = hmoe.prune.cut(half)
    with torch.no_grad():
        assert torch.equal(half(x), own(x))
        assert_close([half(x)], [hmoe.prune.neurons(moe, sums, 0.5, importance="heapr")(x)])
    x = x.requires_grad_()
    y, of_own = half(x), own(x)
    assert torch.equal(y, of_own)
    (y**2).sum().backward()
    dx, x.grad = x.grad, None
    (of_own**2).sum().backward()
    assert torch.equal(dx, x.grad) and torch.equal(ordered.router.weight.grad, own.router.weight.grad)
    for whole, narrow, h in zip(ordered.experts, own.experts, widths):  # gradients of the layer's parameters
        assert torch.equal(whole.gate.grad[:h], narrow.gate.grad) and not whole.gate.grad[h:].any()
        assert torch.equal(whole.down.grad[:, :h], narrow.down.grad) and not whole.down.grad[:, h:].any()
        assert torch.equal(whole.down_bias.grad, narrow.down_bias.grad)
    with torch.no_grad():
        ordered.experts[0].down_bias.add_(1)  # seen at once
        assert not torch.equal(half(x), own(x))
    with pytest.raises(hmoe.Error, match="expert 1 shall run at width 5, it has 4"):
        hmoe.prune.nested(moe, [6, 5, 5, 6])
    with pytest.raises(hmoe.Error, match="the experts are nested"):
        hmoe.prune.take_neurons(half, [[0]] * 4)
    with pytest.raises(hmoe.Error, match="no file of their own"):
        hmoe.nn.save("nowhere", half)
    with pytest.raises(hmoe.Error, match="the experts are not nested"):
        hmoe.prune.cut(moe)


def test_nested_layers_pack():
    moe = packable()
    half = hmoe.prune.nested(moe, [24, 0, 32, 16])
    x = tokens(12, 64, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(half.packed("q8_channel")(x), hmoe.prune.cut(half).packed("q8_channel")(x))
