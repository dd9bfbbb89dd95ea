# SPDX-License-Identifier: MIT
"""Quality of cut models against activated FLOPs and against bytes."""

from . import plotting
from .plotting import PALETTE, QUIET, Key
from .pruning import TITLES, groups_of
from .series import Figure

CUTS = [cut for cut in TITLES if cut != "nothing"]


def draw(axes, read, key, unit, words):
    groups = groups_of(read)
    whole = [group for group in groups if group.cut == "nothing"]
    keys = []
    for group in whole:
        axes.axhline(group.mean("bits_per_byte"), color=QUIET, linewidth=0.8, linestyle=(0, (2, 1.5)))
        axes.plot([line[key] / unit for line in group.lines], [line["bits_per_byte"] for line in group.lines], "D",
                  color=QUIET, markersize=4, linewidth=0)  # fmt: skip
    if whole:
        keys.append(Key(TITLES["nothing"], QUIET, marker="D"))
    for index, cut in enumerate(CUTS):
        own = sorted((group for group in groups if group.cut == cut), key=lambda group: group.budget)
        for model in dict.fromkeys(group.model for group in own):
            points = [group for group in own if group.model == model]
            axes.plot([group.mean(key) / unit for group in points], [group.mean("bits_per_byte") for group in points],
                      color=PALETTE[index], marker="o", markersize=4)  # fmt: skip
            for group in points:  # each seed
                axes.plot([line[key] / unit for line in group.lines], [line["bits_per_byte"] for line in group.lines], "o",
                          color=PALETTE[index], markersize=3, markerfacecolor="none", linewidth=0)  # fmt: skip
        if own:
            keys.append(Key(TITLES[cut], PALETTE[index]))
    axes.set_xlim(left=0)
    axes.set_xlabel(words)
    axes.set_ylabel("bits per byte, held out")
    return keys


def figure(read):
    made = Figure(
        "quality",
        "Quality against cost",
        "Held-out bits per byte after the fine-tuning; lower is better. Filled points and lines are means, hollow points "
        "the seeds. Activated FLOPs are those of the experts that held-out tokens were routed to.",
    )
    made.add("activated", draw, read, "expert_flops_per_token", 1e3, "expert FLOPs per token (thousands)")
    made.add("in memory", draw, read, "expert_bytes", 1e3, "bytes of the experts (thousands)")
    return made
