# SPDX-License-Identifier: MIT
"""The code of README.md runs, one block after the other, with a small model and batch in place of the reader's."""

import pathlib
import re

import pytest
import torch
import transformers


def test_the_code_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, num_local_experts=4)  # fmt: skip
    transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes)).save_pretrained("model")
    x = torch.randn(3, 40, 768)
    scope = {
        "name": "model",
        "task_loss": lambda y: y.square().mean(),
        "batch": x,
        "loss_of": lambda _, batch: scope["moe"](batch).square().sum(),
    }
    page = (pathlib.Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        if "hmoe.nn.MoE(" in block:
            scope["x"] = x
        if "unstack" in block:
            scope["ids"] = torch.randint(3, 64, (2, 9))
        exec(compile(block, "README.md", "exec"), scope)
    model, alone = scope["model"], scope["alone"]
    assert model.config._experts_implementation == "hmoe"
    assert 0 < sum(alone.widths) <= 12288 // 2 and alone.widths == scope["half"].widths
    assert [sum(layer.mlp.experts.widths) for layer in model.model.layers] == [48, 48]
    assert (tmp_path / "pruned.safetensors").exists()


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
