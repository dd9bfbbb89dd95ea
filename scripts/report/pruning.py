# SPDX-License-Identifier: MIT
"""Reads pruning.json, which `language_model prune` writes, and makes a table and a page of it."""

from dataclasses import dataclass

from . import document, results, tables
from .findings import machine_text

FORMAT = "hmoe-pruning-1"
TITLES = {
    "nothing": "whole model",
    "uniform": "uniform width cut",
    "unequal": "unequal width cut",
    "drop": "experts dropped",
    "constants": "experts → constants",
}
NUMBERS = (
    "seed",
    "budget",
    "expert_bytes",
    "expert_flops_per_token",
    "flops_per_token",
    "bits_per_byte_before",
    "bits_per_byte",
    "tokens_per_second",
)
CHECK = results.record(
    {
        "machine": results.record({"cpu": results.text}, {"threads": results.number}),
        "lines": results.list_of(
            results.record(
                {"model": results.text, "cut": results.text, **{name: results.number for name in NUMBERS}}
            ),
            minimum=1,
        ),
    },
    {
        "command": results.text,
        "calibration_tokens": results.number,
        "anneal": results.record({"tokens": results.number, "learning_rate": results.number}),
        "interrupted": results.flag,
    },
)


@dataclass(frozen=True)
class Group:
    """Lines that differ in the seed alone."""

    model: str
    cut: str
    budget: float
    lines: tuple

    def mean(self, key):
        return sum(line[key] for line in self.lines) / len(self.lines)

    def half_range(self, key):
        values = [line[key] for line in self.lines]
        return (max(values) - min(values)) / 2

    @property
    def title(self):
        return TITLES.get(self.cut, self.cut)


def load(path):
    read = results.parse(path)
    if not isinstance(read, dict) or read.get("format") != FORMAT:
        raise results.ResultsError(f"{path} is not what `language_model prune` writes: its format is not {FORMAT}")
    CHECK(read, "the file")
    return read


def groups_of(read):
    found = {}
    for line in read["lines"]:
        found.setdefault((line["model"], line["cut"], line["budget"]), []).append(line)
    return [Group(*key, tuple(lines)) for key, lines in found.items()]


def bits(group, key):
    spread = f" ± {group.half_range(key):.3f}" if len(group.lines) > 1 else ""
    return f"{group.mean(key):.3f}{spread}"


def table(read):
    several = len({line["model"] for line in read["lines"]}) > 1
    head = ["Cut", "Budget", "Seeds", "Bits per byte when cut", "Fine-tuned", "Expert FLOPs per token", "Expert bytes",
            "Tokens/s"]  # fmt: skip
    rows = [
        [
            group.title,
            f"{100 * group.budget:g} %",
            f"{len(group.lines)}",
            bits(group, "bits_per_byte_before"),
            bits(group, "bits_per_byte"),
            f"{group.mean('expert_flops_per_token') / 1e3:.1f} k",
            f"{group.mean('expert_bytes') / 1e3:.0f} k",
            f"{group.mean('tokens_per_second'):,.0f}",
        ]
        for group in groups_of(read)
    ]
    if several:
        head = ["Model", *head]
        rows = [[group.model, *row] for group, row in zip(groups_of(read), rows)]
    return tables.Table(head, rows, text_columns=2 if several else 1)


def how_it_was_run(read):
    anneal = read.get("anneal")
    seeds = sorted({line["seed"] for line in read["lines"]})
    words = f"{machine_text(read)}; seeds {', '.join(f'{seed:g}' for seed in seeds)}"
    if read.get("calibration_tokens"):
        words += f"; importance from {read['calibration_tokens']:,} training tokens"
    if anneal:
        words += (
            f"; each line fine-tuned on {anneal['tokens']:,} further tokens, learning rate "
            f"{anneal['learning_rate']:g} falling to 0"
        )
    return words


def markdown(read):
    made = table(read)
    lines = [
        "| " + " | ".join(made.head) + " |",
        "|" + " --- |" * made.text_columns + " ---: |" * (len(made.head) - made.text_columns),
    ]
    lines += ["| " + " | ".join(map(tables.cell_markdown, row)) + " |" for row in made.rows]
    lines += ["", f"From `{read.get('command') or 'a run'}` on {how_it_was_run(read)}."]
    return "\n".join(lines)


def html(read):
    from . import pruning_figure  # needs matplotlib

    parts = [
        ("quality", "Quality against cost", document.figure(pruning_figure.figure(read))),
        ("table", "The table", document.section("table", "The table", tables.html(table(read)))),
    ]
    lead = (
        f"{how_it_was_run(read)}. Numbers are means over the seeds, ± half the range between them; the fine-tuning is the "
        "same for all, the whole model included."
    )
    return document.page("Cutting experts: quality against cost", lead, parts)
