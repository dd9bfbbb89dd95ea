# SPDX-License-Identifier: MIT
"""Models of transformers on hmoe: every family that has experts behind the interface, against transformers' own loops."""

import copy
import importlib
import inspect
import pathlib
import re

import pytest
import torch
import transformers
from transformers.integrations import moe

import hmoe
import hmoe.transformers as drop_in

FOLDER = pathlib.Path(transformers.__file__).parent / "models"


def expert_classes():
    """(family, class name) of all classes of experts that go through the interface."""
    found = []
    for path in sorted(FOLDER.glob("*/modeling_*.py")):
        for name in re.findall(r"^@use_experts_implementation\b.*\nclass (\w+)", path.read_text(), flags=re.M):
            found.append((path.parent.name, path.stem, name))
    return found


CLASSES = expert_classes()


class Sizes(dict):
    """A configuration that has every attribute: sizes by what its name says, and activations."""

    _experts_implementation = "eager"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self:
            return self[name]
        if "act" in name:
            return "relu2" if "mlp_hidden_act" in name else "silu"
        if "limit" in name:
            return 0.75
        if "alpha" in name:
            return 1.702
        if "softcap" in name:
            return 2.0
        if "eps" in name:
            return 1e-6
        if "dtype" in name:
            return None
        if "expert" in name and "size" not in name:
            return 6
        if "intermediate" in name or "ffn" in name:
            return 24
        if "layer" in name:
            return 2
        return 20


def build(family, file, name, dtype=torch.float32, implementation="eager"):
    torch.manual_seed(1)
    cls = getattr(importlib.import_module(f"transformers.models.{family}.{file}"), name)
    config = Sizes()
    more = {}
    for parameter in list(inspect.signature(cls.__init__).parameters.values())[2:]:
        if parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_KEYWORD \
                and parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            more[parameter.name] = 0.75 if "limit" in parameter.name else 24 if "size" in parameter.name else 1
    module = cls(config, **more).to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4)
    return module


def inputs(module, dtype=torch.float32, tokens=13, choices=3):
    torch.manual_seed(2)
    first = module.gate_up_proj if module.has_gate else module.up_proj
    d = first.shape[1] if module.is_transposed else first.shape[2]
    x = torch.randn(tokens, d).to(dtype).requires_grad_()
    ids = torch.stack([torch.randperm(first.shape[0])[:choices] for _ in range(tokens)])
    weights = torch.rand(tokens, choices).to(dtype).requires_grad_()
    return x, ids, weights


def run(module, implementation, x, ids, weights):
    module.config._experts_implementation = implementation
    y = module(x, ids, weights)
    leaves = [x, weights, *module.parameters()]
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(y.dtype)
    return y, torch.autograd.grad(y, leaves, dy)


@pytest.mark.parametrize("family, file, name", CLASSES, ids=[f"{c[0]}.{c[2]}" for c in CLASSES])
def test_experts_of(family, file, name):
    module = build(family, file, name)
    x, ids, weights = inputs(module)
    expected, right = run(module, "eager", x, ids, weights)
    y, gradients = run(module, "hmoe", x, ids, weights)
    assert drop_in._recognise(module) != drop_in.UNKNOWN
    scale = expected.abs().max().item()
    torch.testing.assert_close(y, expected, atol=1e-5 * max(scale, 1), rtol=1e-5)
    for own, one in zip(gradients, right):
        torch.testing.assert_close(own, one, atol=1e-4 * max(one.abs().max().item(), 1), rtol=1e-4)
    with torch.no_grad():  # other kernels run
        torch.testing.assert_close(module(x, ids, weights), expected, atol=1e-5 * max(scale, 1), rtol=1e-5)


@pytest.mark.parametrize("family, file, name", CLASSES, ids=[f"{c[0]}.{c[2]}" for c in CLASSES])
def test_experts_in_bfloat16_of(family, file, name):
    """Within the rounding of all steps, of what eager loops give in float32 for the same numbers."""
    half = build(family, file, name, torch.bfloat16)
    module = copy.deepcopy(half).float()
    x, ids, weights = inputs(half, torch.bfloat16)
    expected, right = run(module, "eager", x.detach().float().requires_grad_(), ids, weights.detach().float().requires_grad_())
    y, gradients = run(half, "hmoe", x, ids, weights)
    with torch.no_grad():
        for low in (y, half(x, ids, weights)):
            assert low.dtype == torch.bfloat16 and (low.float() - expected).norm() < 0.02 * expected.norm()
    for own, one in zip(gradients, right):
        assert (own.float() - one).norm() <= 0.02 * one.norm()


def test_there_are_families():
    assert len({c[0] for c in CLASSES}) > 60


MIXTRAL = ("mixtral", "modeling_mixtral", "MixtralExperts")
GPT_OSS = ("gpt_oss", "modeling_gpt_oss", "GptOssExperts")
NEMOTRON = ("nemotron_h", "modeling_nemotron_h", "NemotronHExperts")  # without a gate
MUSE_SPARK = ("muse_spark", "modeling_muse_spark", "MuseSparkExperts")  # with a norm behind each expert


@pytest.mark.parametrize("which", [MIXTRAL, GPT_OSS, NEMOTRON])
@pytest.mark.parametrize("form, tolerance", [("in_place", 1e-6), ("f32", 1e-6), ("bf16", 0.02), ("q8_channel", 0.05), ("q4", 0.3)])
def test_weights_that_are_held(which, form, tolerance):
    module = build(*which)
    x, ids, weights = inputs(module)
    module.config._experts_implementation = "hmoe"
    drop_in.configure(module, weights=form)
    expected = module(x, ids, weights).detach()
    with torch.no_grad():
        y = module(x, ids, weights)
        assert (y - expected).norm() <= tolerance * expected.norm()
        held = drop_in.packed_bytes(module)
        assert (held > 0) == (form != "in_place" or module.is_transposed)
        module.down_proj.mul_(2)  # noticed
        if module.has_bias:
            module.gate_up_proj_bias.add_(1)
    expected = module(x, ids, weights).detach()
    with torch.no_grad():
        y = module(x, ids, weights)
        assert (y - expected).norm() <= tolerance * expected.norm()
    drop_in.release(module)
    assert drop_in.packed_bytes(module) == 0


def test_other_weights_at_the_same_address_are_noticed():
    module = build(*MIXTRAL)
    x, ids, weights = inputs(module)
    module.config._experts_implementation = "hmoe"
    drop_in.configure(module, weights="f32")
    memory = module.down_proj.detach().numpy().copy()

    def new_parameter():
        module.down_proj = None
        module.down_proj = torch.nn.Parameter(torch.frombuffer(memory, dtype=torch.float32).view(memory.shape))

    with torch.no_grad():
        new_parameter()
        y = module(x, ids, weights)
        held = drop_in._held[module._hmoe_key]
        assert torch.equal(module(x, ids, weights), y) and drop_in._held[module._hmoe_key] is held
        memory *= 2
        new_parameter()
        torch.testing.assert_close(module(x, ids, weights), 2 * y)
    with torch.inference_mode():  # these tensors have no versions
        module.down_proj = torch.nn.Parameter(module.down_proj.clone(), requires_grad=False)
        y = module(x, ids, weights)
        module.down_proj.mul_(2)
        torch.testing.assert_close(module(x, ids, weights), 2 * y)


def test_another_activation_is_noticed():
    module = build(*MIXTRAL)
    x, ids, weights = inputs(module)
    for name, act in ("silu", torch.nn.SiLU()), ("gelu", torch.nn.GELU()), ("relu", torch.nn.ReLU()):
        module.act_fn = act
        torch.testing.assert_close(run(module, "hmoe", x, ids, weights)[0], run(module, "eager", x, ids, weights)[0],
                                   atol=1e-5, rtol=1e-5)  # fmt: skip
        assert drop_in._recognise(module)[0] == name


def test_weights_of_each_expert():
    module = build(*MIXTRAL)
    x, ids, _ = inputs(module)
    shares = torch.rand(len(x), 6, generator=torch.Generator().manual_seed(4))
    module.config._experts_implementation = "hmoe"
    with torch.no_grad():
        ids[0, 1] = 6  # of another rank
        y = module(x, ids, shares)
        assert torch.equal(y, module(x, ids, shares.gather(1, ids.clamp(max=5))))
        with pytest.raises(hmoe.Error, match=r"weights \(13, 2\): needed are"):
            module(x, ids, shares[:, :2])


def test_a_copy_of_a_module_has_weights_of_its_own():
    module = build(*GPT_OSS)
    x, ids, weights = inputs(module)
    module.config._experts_implementation = "hmoe"
    with torch.no_grad():
        y = module(x, ids, weights)
        other = copy.deepcopy(module)
        other.down_proj.zero_()
        other.down_proj_bias.zero_()
        assert torch.equal(other(x, ids, weights), torch.zeros_like(y))
        assert torch.equal(module(x, ids, weights), y)


@pytest.mark.parametrize("which", [MIXTRAL, GPT_OSS, NEMOTRON, MUSE_SPARK])
def test_ids_of_other_ranks_are_skipped(which):
    module = build(*which)
    x, ids, weights = inputs(module)
    module._is_expert_parallel = True
    ids[0] = 6
    ids[1, 1] = 6
    expected, right = run(module, "batched_mm", x, ids, weights)
    y, gradients = run(module, "hmoe", x, ids, weights)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    assert not y[0].any() and not gradients[1][0].any()
    for own, one in zip(gradients, right):
        torch.testing.assert_close(own, one, atol=1e-4, rtol=1e-4)


def test_unknown_activations_are_computed_by_transformers():
    module = build(*MIXTRAL)
    module.act_fn = torch.nn.Tanh()
    x, ids, weights = inputs(module)
    with pytest.warns(UserWarning, match="hmoe knows no kernel for what MixtralExperts computes"):
        y, _ = run(module, "hmoe", x, ids, weights)
    torch.testing.assert_close(y, run(module, "eager", x, ids, weights)[0], atol=1e-5, rtol=1e-5)


def test_mistakes_are_sentences():
    module = build(*MIXTRAL).half()
    x, ids, weights = inputs(module, torch.float16)
    with pytest.raises(hmoe.Error, match="weights of torch.float16: hmoe computes with"):
        run(module, "hmoe", x, ids, weights)
    with pytest.raises(hmoe.Error, match='weights="q3": there are in_place, f32, bf16'):
        drop_in.configure(weights="q3")


# Whole models; those of all families: test_families.py.

SMALL = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, max_position_embeddings=128, num_experts_per_tok=2, num_local_experts=4,
             pad_token_id=0, bos_token_id=1, eos_token_id=2)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_from_a_file(dtype, tmp_path):
    """The one line that README shows."""
    torch.manual_seed(4)
    saved = transformers.MixtralForCausalLM(transformers.MixtralConfig(**SMALL)).to(dtype)
    saved.save_pretrained(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, experts_implementation="hmoe")
    assert model.dtype == dtype and model.config._experts_implementation == "hmoe"
    tokens, called = torch.randint(3, 64, (1, 7)), []
    own = drop_in.moe.ALL_EXPERTS_FUNCTIONS["hmoe"]
    drop_in.moe.ALL_EXPERTS_FUNCTIONS["hmoe"] = lambda *given: (called.append(given[0]), own(*given))[1]
    try:
        with torch.no_grad():
            logits = model(tokens).logits
    finally:
        drop_in.moe.ALL_EXPERTS_FUNCTIONS["hmoe"] = own
    assert called == [layer.mlp.experts for layer in model.model.layers]
    saved.set_experts_implementation("hmoe")
    with torch.no_grad():
        assert torch.equal(logits, saved(tokens).logits)


@pytest.mark.parametrize("form", ["in_place", "bf16"])
def test_compile_without_a_graph_break(form):
    torch.manual_seed(4)
    config = transformers.GptOssConfig(**SMALL)
    model = transformers.GptOssForCausalLM._from_config(config, experts_implementation="hmoe").eval()
    drop_in.configure(model, weights=form)
    block = model.model.layers[0].mlp
    x = torch.randn(1, 5, 32)
    with torch.no_grad():
        compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
        y = compiled(x)[0]
        torch.testing.assert_close(y, block(x)[0])
        block.experts.down_proj.mul_(2)
        block.experts.down_proj_bias.mul_(2)
        torch.testing.assert_close(compiled(x)[0], 2 * y)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
