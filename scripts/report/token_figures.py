# SPDX-License-Identifier: MIT
"""The figures about tokens: which of them the experts get, and whether hard ones get wider experts."""

import numpy as np

from .findings import signed
from .plotting import PALETTE, Key
from .series import MOST_LINES, Figure
from .variants import baseline, is_dense, is_heterogeneous, main_variant, router, title


def draw_difficulty(axes, variant):
    difficulty = variant["runs"][0].get("difficulty") or {}
    bins = [b for b in difficulty.get("bins") or [] if b["tokens"] > 0 and b["mean_width_per_layer"]]
    if len(bins) < 2:
        return None
    x = np.array([(b["from"] + b["to"]) / 2 for b in bins])
    y = np.array([b["mean_width_per_layer"] for b in bins], dtype=float)
    correlations = difficulty.get("correlation_per_layer") or []
    keys = []
    for layer in range(y.shape[1]):
        colour = PALETTE[layer % len(PALETTE)]
        words = f", correlation {signed(correlations[layer], 2)}" if layer < len(correlations) else ""
        keys.append(Key(f"layer {layer + 1}{words}", colour))
        axes.hlines(
            y[:, layer], [b["from"] for b in bins], [b["to"] for b in bins], color=colour, alpha=0.35, linewidth=3
        )
        axes.plot(x, y[:, layer], "o-", color=colour, markersize=4, linewidth=1.2)
    # Never a range so narrow that a flat line looks steep.
    axes.set_ylim(min(y.min() * 0.97, 0.8 * y.mean()), max(y.max() * 1.03, 1.2 * y.mean()))
    axes.set(xlabel="loss of the token (nats)", ylabel="mean activated width")
    return keys


def difficulty_figure(results):
    figure = Figure(
        "difficulty",
        "Do hard tokens get wider experts?",
        "Mean activated width of the held-out tokens, sorted by how badly the model predicts what follows them and cut "
        "into bins of equally many tokens (first seed); each pale bar spans its bin. A line that rises would mean that "
        "hard tokens get more computation.",
    )
    main = main_variant(results)
    for variant in [v for v in results["variants"] if not is_dense(v)]:
        if not is_heterogeneous(variant) and router(variant) != "top-p":
            continue  # with equal widths and a fixed number of experts there is nothing to see
        folded = variant is not main and len(results["variants"]) > MOST_LINES
        figure.add(title(variant), draw_difficulty, variant, folded=folded)
    return figure


def draw_matrix(axes, rows, widths, label):
    if len(rows) < 2 or len(rows) != len(widths) or any(len(row) != len(rows) for row in rows):
        return None
    values = np.array(rows, dtype=float)
    off_diagonal = ~np.eye(len(values), dtype=bool)
    image = axes.pcolormesh(
        np.ma.masked_array(values, ~off_diagonal), cmap="Blues", edgecolors="white", linewidth=1.2,
        vmin=min(0.0, values[off_diagonal].min()), vmax=values[off_diagonal].max() or 1,
    )  # fmt: skip
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    unequal = len(set(widths)) > 1
    names = [f"{width:g}" if unequal else f"{index + 1}" for index, width in enumerate(widths)]
    axes.set_xticks(np.arange(len(names)) + 0.5, names, fontsize=7.5, rotation=45 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=7.5)
    words = "width of the expert" if unequal else "expert"
    axes.set(xlabel=words, ylabel=words)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.85, aspect=18)
    bar.outline.set_visible(False)
    bar.set_label(label)
    return []


def matrix_figure(results, key, heading, label, caption):
    figure = Figure(key, heading, caption)
    for variant in (main_variant(results), baseline(results)):
        layers = (variant["runs"][0].get(key) or []) if variant is not None else []
        for layer, rows in enumerate(layers):
            words = f"{title(variant)}: layer {layer + 1}"
            figure.add(words, draw_matrix, rows, variant["widths"], label, size=(4.5, 3.6))
    return figure


def distance_figure(results):
    return matrix_figure(
        results,
        "distance",
        "Do some experts get the hard tokens?",
        "Wasserstein distance",
        "Lay all tokens out from 0 (easiest) to 1 (hardest); the picture shows the Wasserstein distance of two experts "
        "on that line, ∫|<i>F<sub>a</sub></i> − <i>F<sub>b</sub></i>|. It is 0 where both see the same mixture of easy "
        "and hard tokens, and 1 where one sees only the easiest and the other only the hardest (first seed). The "
        "diagonal is 0 and left out.",
    )


def synergy_figure(results):
    return matrix_figure(
        results,
        "synergy",
        "Which experts work on the same tokens",
        "divergence (nats)",
        "The paper's synergy: (KL(<i>a</i>‖<i>b</i>) + KL(<i>b</i>‖<i>a</i>))/2 between the distributions of tokens "
        "that two experts get (first seed). Light: the two work on the same tokens. Dark: each has tokens of its own. "
        "The diagonal is 0 and left out.",
    )
