# SPDX-License-Identifier: MIT
"""What all figures share: curves from the history of runs, and which variants stand together in which colours."""

from dataclasses import dataclass, field

import numpy as np

from . import plotting
from .plotting import DASHES, PALETTE, Panel
from .variants import baseline, controls_of, loss_ablation, main_variant, normalised, size_ablation

TERA = 1e12
MOST_POINTS = 200  # of a line in a figure; more cannot be seen
MOST_LINES = 5  # in one panel


@dataclass
class Figure:
    name: str
    heading: str
    caption: str  # HTML, written here: nothing in it comes from data
    panels: list = field(default_factory=list)
    folded: list = field(default_factory=list)  # further panels, shown on request

    def add(self, words, draw, *arguments, size=plotting.PANEL, folded=False):
        drawing, axes = plotting.new(size=size)
        keys = draw(axes, *arguments)
        if keys is None:
            plotting.close(drawing)
            return
        name = f"{self.name}-{len(self.panels)}-{len(self.folded)}"
        picture = plotting.svg(drawing, name, f"{self.heading}: {words}")
        (self.folded if folded else self.panels).append(Panel(words, keys, picture))


# ---- series ----


def series(run, key):
    """(FLOPs in tera, values) of a quantity over training."""
    points = [(p["flops"] / TERA, p[key]) for p in run.get("history") or [] if p.get(key) is not None and p[key] != []]
    return np.array([x for x, _ in points]), np.array([y for _, y in points], dtype=float)


def thinned(x, y):
    """At most MOST_POINTS points, each the mean of its neighbours."""
    if len(x) <= MOST_POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), MOST_POINTS)
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean(axis=0) for part in parts])


def mean_series(variant, key):
    """(x, mean, lowest, highest) over a variant's runs, or None."""
    runs = [series(run, key) for run in variant["runs"]]
    runs = [(x, y) for x, y in runs if len(x) > 1]
    if not runs:
        return None
    begin, end = max(x[0] for x, _ in runs), min(x[-1] for x, _ in runs)
    grid = runs[0][0][(runs[0][0] >= begin) & (runs[0][0] <= end)]
    if len(grid) < 2:
        return None
    values = np.array([np.interp(grid, x, y) for x, y in runs])
    return grid, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def share_series(run):
    """(x, array of points × layers × experts), every layer's shares adding up to 1."""
    points = [
        (p["flops"] / TERA, [normalised(row) for row in p["share_per_layer"]])
        for p in run.get("history") or []
        if p.get("share_per_layer")
    ]
    return np.array([x for x, _ in points]), np.array([rows for _, rows in points], dtype=float)


# ---- who is who ----


def looks(results, variants):
    """{name: (colour, dashes)}: in every panel the main pair and its control have the same, first, colours."""
    leading = [v for v in (baseline(results), main_variant(results)) if v is not None]
    if main_variant(results) is not None:
        leading += controls_of(results, main_variant(results))[:1]
    names = [v["name"] for v in leading]
    names += [v["name"] for v in variants if v["name"] not in names]
    return {
        name: (PALETTE[index % len(PALETTE)], DASHES[index // len(PALETTE) % len(DASHES)])
        for index, name in enumerate(names)
    }


def groups(results):
    """(heading, variants): few enough lines in each panel to be told apart."""
    if len(results["variants"]) <= MOST_LINES:
        return [("All variants", results["variants"])]
    reference, main = baseline(results), main_variant(results)
    found, seen = [], []

    def add(heading, variants):
        variants = [v for v in variants if v is not None]
        if len(variants) > 1:
            found.append((heading, variants))
            seen.extend(v["name"] for v in variants)

    add("Main pair and control", [reference, main, *(controls_of(results, main)[:2] if main else [])])
    add("Sizes of the experts", size_ablation(results))
    add("Auxiliary losses", loss_ablation(results))
    rest = [v for v in results["variants"] if v["name"] not in seen]
    add("Controls of the others", [reference, *(v for v in rest if v.get("control_of"))])
    add("Other variants", [reference, *(v for v in rest if not v.get("control_of"))])
    return found


def compute_axis(axes, label):
    axes.set(xlabel="training compute (TFLOP)", ylabel=label)
    axes.locator_params(axis="x", nbins=6)
