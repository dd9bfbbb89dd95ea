# SPDX-License-Identifier: MIT
"""Experts of transformers' models as hmoe.nn.Experts: the same numbers, and unequal widths after pruning."""

import copy

import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5")

import hmoe.nn  # noqa: E402
import hmoe.prune  # noqa: E402

SIZES = dict(vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
             tie_word_embeddings=False, pad_token_id=0)  # fmt: skip
MODELS = {
    "mixtral": ("MixtralConfig", dict(intermediate_size=24, num_local_experts=4)),
    "qwen3_moe": ("Qwen3MoeConfig", dict(intermediate_size=48, moe_intermediate_size=16, num_experts=8,
                                         num_experts_per_tok=3, norm_topk_prob=True)),
    "gpt_oss": ("GptOssConfig", dict(intermediate_size=24, num_local_experts=4, num_experts_per_tok=2,
                                     sliding_window=8)),
}  # fmt: skip


def model_of(name):
    torch.manual_seed(1)
    config, sizes = MODELS[name]
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**SIZES, **sizes))
    with torch.no_grad():
        for values in model.parameters():
            values.normal_(0, 0.2)
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_with_its_experts_unstacked_and_pruned(name, tmp_path):
    model = model_of(name)
    ids = torch.randint(1, 61, (2, 12), generator=torch.Generator().manual_seed(2))
    model.set_experts_implementation("eager")
    before = copy.deepcopy(model)
    loss = before(ids, labels=ids).loss
    loss.backward()

    layers = hmoe.prune.unstack(model)
    assert list(layers) == [f"model.layers.{i}.mlp.experts" for i in range(2)]
    sums = {where: hmoe.prune.Calibration(experts) for where, experts in layers.items()}
    with sums["model.layers.0.mlp.experts"].watch(), sums["model.layers.1.mlp.experts"].watch():
        own = model(ids, labels=ids).loss
        own.backward()
    torch.testing.assert_close(own, loss, rtol=1e-5, atol=1e-5)
    embedding, reference = (m.get_input_embeddings().weight.grad for m in (model, before))
    torch.testing.assert_close(embedding, reference, rtol=1e-3, atol=1e-4 * reference.abs().max().item())

    for where, experts in layers.items():
        hmoe.prune.replace(model, where, hmoe.prune.neurons(experts, sums[where], 0.5, importance="heapr"))
    small = [model.get_submodule(where) for where in layers]
    for experts, whole in zip(small, layers.values()):
        assert sum(experts.widths) == sum(whole.widths) // 2 and len(set(experts.widths)) > 1
    # Cutting neurons is the same as setting their columns of down to 0 in the stacked tensors.
    masked = copy.deepcopy(before)
    with torch.no_grad():
        for where in layers:
            chosen = sums[where].within(sums[where].importance("heapr"), 0.5)
            down = masked.get_submodule(where).down_proj  # [N, d, h], of gpt-oss [N, h, d]
            neurons = down if masked.get_submodule(where).is_transposed else down.transpose(1, 2)
            for e, kept in enumerate(chosen):
                neurons[e, [i for i in range(neurons.shape[1]) if i not in kept]] = 0
        torch.testing.assert_close(model(ids).logits, masked(ids).logits, rtol=1e-4, atol=1e-4)
        assert model.generate(ids[:1, :4], max_new_tokens=3, do_sample=False).shape == (1, 7)

    path = tmp_path / "pruned.safetensors"
    hmoe.nn.save(path, {where.removesuffix("experts"): model.get_submodule(where) for where in layers}, what="pruned")
    assert [entry["prefix"] for entry in hmoe.nn.read_manifest(path)] == [f"model.layers.{i}.mlp." for i in range(2)]
    again = copy.deepcopy(small[1])
    again.reset_parameters()
    hmoe.nn.load(path, again, "model.layers.1.mlp.")
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), small[1].state_dict().values()))
