# SPDX-License-Identifier: MIT
"""Small random models of every family of transformers whose experts go through its interface: forward, loss.backward() and
generate on hmoe, against transformers' own loops."""

import copy
import dataclasses
import importlib

import pytest
import torch
from test_transformers import CLASSES

import hmoe.transformers as drop_in

#: Sizes by the names that configurations have for them; what is not named here is shrunk by rules.
SIZES = dict(vocab_size=64, unpadded_vocab_size=64, hidden_size=32, intermediate_size=48, moe_intermediate_size=24, head_dim=8,
             num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128, num_experts=6,
             n_routed_experts=6, n_shared_experts=1, num_experts_per_tok=2, top_k_experts=2, vocab_size_per_layer_input=64, pad_token_id=0,
             bos_token_id=1, eos_token_id=2)  # fmt: skip


def rope(*sections):
    return dict(rope_type="default", rope_theta=1e4, mrope_section=list(sections))


SPARSE = ["dense", *["sparse"] * 4]
#: What single families need beside that.
MORE = {
    "bailing_hybrid": dict(layer_group_size=2),
    "deepseek_ocr2": dict(mlp_layer_types=SPARSE),
    "ernie4_5_vl_moe": dict(moe_intermediate_size=[24, 24], rope_parameters=rope(1, 1, 2)),
    "gemma4": dict(enable_moe_block=True, num_kv_shared_layers=0),
    "glm4v_moe": dict(head_dim=16, rope_parameters=rope(1, 1, 2)),
    "glm5_next": dict(index_kpool=1),
    "granitemoehybrid": dict(layer_types=["linear_attention", "full_attention"] * 2 + ["linear_attention"]),
    "hy_v4_vl": dict(rope_parameters=rope(4, 2, 2)),
    "inkling2_loop": dict(n_layers_per_attn_res_block=1, loop_layer_index_start=1, loop_layer_index_end=3),
    "lfm2_moe": dict(layer_types=["conv", *["full_attention"] * 4]),
    "mimo_v2_flash": dict(num_attention_heads=8),
    "qwen4_exp": dict(indexer_n_heads=2, indexer_kv_heads=1, indexer_head_dim=16, indexer_budget=4, indexer_compress_ratio=2),
    "zaya": dict(num_experts_per_tok=1),
}


def small(config_class):
    """Keyword arguments of a small configuration."""
    found = {}
    for field in dataclasses.fields(config_class):
        name, default = field.name, field.default
        if name in SIZES:
            found[name] = SIZES[name]
        elif isinstance(default, int) and not isinstance(default, bool):
            if "shared" in name or "group" in name and "size" not in name:
                found[name] = 1
            elif "tok" in name and "expert" in name or "topk" in name or name == "moe_k":
                found[name] = 2
            elif "experts" in name:
                found[name] = 6
            elif "heads" in name:
                found[name] = min(default, 4)
            elif default > 16:
                found[name] = 16
    return found


def class_of(family, file):
    """A language model of the family, or where there is none the model of text, or else the model."""
    module = importlib.import_module(f"transformers.models.{family}.{file}")
    names = [name for ending in ("ForCausalLM", "TextModel", "Model") for name in module.__all__ if name.endswith(ending)]
    return getattr(module, names[0])


def build(family, file, dtype=torch.float32):
    cls = class_of(family, file)
    config = cls.config_class(**{**small(cls.config_class), **MORE.get(family, {})})
    torch.manual_seed(4)
    model = cls._from_config(config, attn_implementation="eager", experts_implementation="eager").eval()
    with torch.no_grad():
        for values in model.parameters():
            if values.dim() > 1:
                values.normal_(std=0.15)
    wide = model._keep_in_fp32_modules_strict if dtype == torch.bfloat16 else ()
    for name, values in (*model.named_parameters(), *model.named_buffers()):  # as from_pretrained does
        if values.is_floating_point() and not any(part in name for part in wide):
            values.data = values.data.to(dtype)
    return model


def run(model, implementation):
    """loss, output, gradients by name, the ids of experts that were chosen, and tokens that were generated."""
    model.set_experts_implementation(implementation)
    model.zero_grad()
    tokens = torch.randint(3, 64, (2, 9), generator=torch.Generator().manual_seed(1))
    chosen = []

    def note(module, args, kwargs):
        chosen.append(next(t for t in (*args, *kwargs.values()) if not t.is_floating_point()))

    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in drop_in._experts_of(model)]
    if type(model).__name__.endswith("ForCausalLM"):
        out = model(tokens, labels=tokens)
        loss, output = out.loss, out.logits
    else:
        output = model(tokens).last_hidden_state
        loss = output.float().square().mean()
    loss.backward()
    for hook in hooks:
        hook.remove()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    new = model.generate(tokens[:1], max_new_tokens=6, do_sample=False) if model.can_generate() else None
    return loss.detach(), output.detach(), gradients, chosen, new


FAMILIES = list(dict.fromkeys(c[:2] for c in CLASSES))


@pytest.mark.parametrize("family, file", FAMILIES, ids=[f[0] for f in FAMILIES])
def test_model_of(family, file):
    model = build(family, file)
    experts = drop_in._experts_of(model)
    assert experts and all(drop_in._recognise(module) != drop_in.UNKNOWN for module in experts)
    _, expected, right, right_chosen, right_new = run(model, "eager")
    _, output, gradients, chosen, new = run(model, "hmoe")
    assert chosen and all(torch.equal(a, b) for a, b in zip(chosen, right_chosen, strict=True))
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == right.keys() and any("experts" in name for name in right)
    for name, one in right.items():
        torch.testing.assert_close(gradients[name], one, atol=1e-4 * max(one.abs().max().item(), 1e-2), rtol=1e-4,
                                   msg=lambda m, n=name: f"{n}: {m}")  # fmt: skip
    assert new is None or torch.equal(new, right_new)


@pytest.mark.parametrize("family, file", FAMILIES, ids=[f[0] for f in FAMILIES])
def test_model_in_bfloat16_of(family, file):
    """Rounding anywhere may change choices, so the loss is compared, with what it is in float32 for the same numbers; the
    experts by themselves are compared in test_transformers.py."""
    model = build(family, file, torch.bfloat16)
    exact = run(copy.deepcopy(model).float(), "eager")[0]
    loss, _, right, _, right_new = run(model, "eager")
    own, _, gradients, chosen, new = run(model, "hmoe")
    assert chosen and (own - exact).abs() < 2 * (loss - exact).abs() + 0.02 * exact.abs()
    assert gradients.keys() == right.keys() and all(g.isfinite().all() for g in gradients.values())
    assert (new is None) == (right_new is None)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
