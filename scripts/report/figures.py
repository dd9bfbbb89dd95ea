# SPDX-License-Identifier: MIT
"""The figures of the report, each with its caption.

A `draw_…` function fills one axes and returns the keys of its legend, or None
if the data are not in the file. The functions in FIGURES turn a results file
into figures of one or more panels; a figure without a panel is left out.
"""

import numpy as np

from . import plotting
from .findings import signed
from .noise import compare, noise_of
from .plotting import BAND, DASHES, INK, PALETTE, QUIET, Key
from .series import MOST_LINES, TERA, Figure, compute_axis, groups, looks, mean_series, share_series, thinned
from .token_figures import difficulty_figure, distance_figure, synergy_figure
from .variants import (
    baseline,
    final_mean,
    is_dense,
    is_heterogeneous,
    layer_mean_share,
    main_variant,
    predicted_share,
    shares,
    title,
)

# ---- loss ----


def draw_loss(axes, variants, look):
    lines = [(v, mean_series(v, "bits_per_byte")) for v in variants]
    lines = [(v, line) for v, line in lines if line is not None]
    if not lines:
        return None
    for variant, (x, middle, low, high) in lines:
        colour, dashes = look[variant["name"]]
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(x, middle, color=colour, linestyle=dashes)
        axes.plot(x[-1], middle[-1], "o", color=colour, markersize=4)
    # The first tenth is a steep fall that would press everything else flat.
    late = [middle[x >= 0.1 * x[-1]] for _, (x, middle, _, _) in lines]
    low, high = min(part.min() for part in late), max(part.max() for part in late)
    axes.set_ylim(low - 0.06 * (high - low), high + 0.04 * (high - low))
    axes.set_xlim(0, max(x[-1] for _, (x, _, _, _) in lines) * 1.02)
    compute_axis(axes, "held-out loss (bits per byte)")
    return [Key(f"{title(v)}: {final_mean(v, 'bits_per_byte'):.3f}", *look[v["name"]]) for v, _ in lines]


def draw_difference(axes, variants, reference, look, noise):
    base = mean_series(reference, "bits_per_byte")
    others = [(v, mean_series(v, "bits_per_byte")) for v in variants if v is not reference]
    others = [(v, line) for v, line in others if line is not None]
    if base is None or not others:
        return None
    limit = max(compare(v, reference, noise).limit for v, _ in others)
    axes.axhspan(-limit, limit, color=BAND, linewidth=0)
    axes.axhline(0, color=look[reference["name"]][0], linewidth=1.2)
    keys, ends = [Key(title(reference), look[reference["name"]][0])], []
    for variant, (x, middle, _, _) in others:
        inside = (x >= max(0.1 * x[-1], base[0][0])) & (x <= base[0][-1] * 1.001)
        x, difference = x[inside], middle[inside] - np.interp(x[inside], base[0], base[1])
        if len(x):
            colour, dashes = look[variant["name"]]
            axes.plot(x, difference, color=colour, linestyle=dashes)
            keys.append(Key(f"{title(variant)}: {signed(compare(variant, reference, noise).value)}", colour, dashes))
            ends.append(np.abs(difference).max())
    reach = max([2.2 * limit, *(1.1 * end for end in ends)])
    axes.set_ylim(-reach, reach)
    axes.set_xlim(0, base[0][-1] * 1.02)
    axes.text(0.015, limit, f" inside the noise: ±{limit:.3f}", color=QUIET, fontsize=8.5, va="bottom",
              transform=axes.get_yaxis_transform())  # fmt: skip
    compute_axis(axes, "difference (bits per byte)")
    return keys


def loss_figure(results):
    figure = Figure(
        "loss",
        "Loss against training compute",
        "Held-out loss against the FLOPs spent in training; a band shows the range over seeds. The numbers in the "
        "legends are the final ones, on all of the evaluation text; the curves may be taken on a part of it. FLOPs of "
        "a token = 3 × forward, forward = 2 · (attention projections + router + head + 3·<i>d</i>·activated width) + "
        "attention. Beside it the difference to the homogeneous layer at the same compute. Inside the grey band the "
        "seeds of the runs explain it (95 %, for the numbers of runs at hand), and nothing follows from it.",
    )
    noise, reference = noise_of(results), baseline(results)
    for heading, variants in groups(results):
        look = looks(results, variants)
        figure.add(heading, draw_loss, variants, look)
        if reference is not None and noise.usable:
            figure.add(
                f"{heading}: difference to the homogeneous layer", draw_difference, variants, reference, look, noise
            )
    return figure


# ---- activated width ----


def parameter_axis(results, variants):
    """(constant, slope) with activated parameters = constant + slope · mean width, or None.

    The report draws a second axis only if the numbers of the file lie on that line.
    """
    model = results.get("model") or {}
    if not model.get("d_model") or not model.get("blocks"):
        return None
    slope = 3 * model["d_model"] * model["blocks"]
    pairs = [(final_mean(v, "activated_width"), final_mean(v, "activated_parameters")) for v in variants]
    constants = [
        parameters - slope * width for width, parameters in pairs if width is not None and parameters is not None
    ]
    if not constants or max(constants) - min(constants) > 0.01 * slope * 100:
        return None
    return sum(constants) / len(constants), slope


def measured_and_predicted(variant):
    """The width at the end of training, which the table shows as well."""
    measured, predicted = final_mean(variant, "activated_width"), variant.get("predicted_activated_width")
    words = "–" if measured is None else f"{measured:.1f}"
    return words + (f" (predicted {predicted:.1f})" if predicted is not None else "")


def draw_width(axes, results, variants, look, second_axis=True):
    keys, lines = [], []
    for variant in variants:
        line = mean_series(variant, "activated_width")
        if line is None:
            continue
        x, middle, low, high = line
        colour, dashes = look[variant["name"]]
        predicted = variant.get("predicted_activated_width")
        if predicted is not None:
            axes.axhline(predicted, color=colour, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.fill_between(*thinned(x, low), thinned(x, high)[1], color=colour, alpha=0.15, linewidth=0)
        axes.plot(*thinned(x, middle), color=colour, linestyle=dashes)
        lines.append((x, middle, predicted))
        keys.append(Key(f"{title(variant)}: {measured_and_predicted(variant)}", colour, dashes))
    if not lines:
        return None
    values = np.concatenate([np.append(middle, p if p is not None else middle[-1]) for _, middle, p in lines])
    room = max(0.12 * (values.max() - values.min()), 0.02 * values.max())
    axes.set_ylim(values.min() - room, values.max() + room)
    axes.set_xlim(0, max(x[-1] for x, _, _ in lines) * 1.02)
    compute_axis(axes, "activated width per token")
    law = parameter_axis(results, variants) if second_axis else None
    if law:
        constant, slope = law
        other = axes.secondary_yaxis(
            "right", functions=(lambda w: (constant + slope * w) / 1e3, lambda p: (p * 1e3 - constant) / slope)
        )
        other.set_ylabel("activated parameters (thousands)")
        other.spines["right"].set_visible(False)
    return keys


def draw_layers(axes, variant):
    run = variant["runs"][0]
    points = [
        (p["flops"] / TERA, p["activated_width_per_layer"])
        for p in run.get("history") or []
        if p.get("activated_width_per_layer")
    ]
    if len(points) < 2:
        return None
    x, y = np.array([p for p, _ in points]), np.array([rows for _, rows in points], dtype=float)
    x, y = thinned(x, y)
    for layer in range(y.shape[1]):
        axes.plot(
            x, y[:, layer], color=PALETTE[layer % len(PALETTE)], linestyle=DASHES[layer // len(PALETTE) % len(DASHES)]
        )
    predicted = variant.get("predicted_activated_width")
    everything = np.append(y.ravel(), predicted if predicted is not None else y[-1, 0])
    room = max(0.12 * (everything.max() - everything.min()), 0.02 * everything.max())
    axes.set_ylim(everything.min() - room, everything.max() + room)
    axes.set_xlim(0, x[-1] * 1.02)
    labels = [(y[-1, layer], f"layer {layer + 1}", PALETTE[layer % len(PALETTE)]) for layer in range(y.shape[1])]
    if predicted is not None:
        axes.axhline(predicted, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        labels.append((predicted, f"{predicted:.1f} predicted", INK))
    plotting.end_labels(axes, labels)
    compute_axis(axes, "activated width per token")
    return []


def width_figure(results):
    figure = Figure(
        "width",
        "Activated parameters over training",
        "The activated width of a token is the sum of the widths of the experts that it uses, mean over tokens and "
        "layers. Each unit of width costs 3·<i>d</i> parameters per layer, so the activated parameters (right scale) "
        "follow the same curve. Dotted: the prediction. With the parameter penalty the shares become proportional to "
        "1/<i>h</i>, and the width becomes <i>k</i> times the harmonic mean, "
        "<i>k</i>·<i>N</i>/Σ(1/<i>h<sub>i</sub></i>).",
    )
    main = main_variant(results)
    for heading, variants in groups(results):
        figure.add(heading, draw_width, results, [v for v in variants if not is_dense(v)], looks(results, variants))
    if main is not None:
        figure.add(f"{title(main)}: each layer", draw_layers, main)
    return figure


# ---- shares ----


def draw_shares(axes, variant):
    """Share of all activations per expert over training, mean over layers, first run."""
    x, y = share_series(variant["runs"][0])
    if len(x) < 2:
        return None
    x, y = thinned(x, y.mean(axis=1))
    widths = variant["widths"]
    colours, strokes = plotting.size_colours(widths), plotting.size_strokes(widths)
    for expert, width in enumerate(widths):
        axes.plot(x, 100 * y[:, expert], color=colours[width], linewidth=strokes[width])
    axes.set_xlim(0, x[-1] * 1.02)
    axes.set_ylim(0, max(100 * y.max() * 1.08, 180 / len(widths)))
    if len(set(widths)) > 1:
        order = sorted(range(len(widths)), key=lambda expert: y[-1, expert])
        labels = [(100 * y[-1, expert], f"{widths[expert]:g}", colours[widths[expert]]) for expert in order]
        plotting.end_labels(axes, labels, gap=0.068)
        axes.text(1.045, 1.02, "width", transform=axes.transAxes, fontsize=8.5, color=QUIET, va="bottom")
    else:
        axes.text(
            0.98,
            0.04,
            f"every expert has width {widths[0]:g}",
            transform=axes.transAxes,
            ha="right",
            color=QUIET,
            fontsize=8.5,
        )
    compute_axis(axes, "share of activations (%)")
    return []


def draw_final_shares(axes, variant):
    """Measured share at the end against width, beside the prediction."""
    rows, middle = shares(variant), layer_mean_share(variant)
    if not rows:
        return None
    widths = np.array(variant["widths"], dtype=float)
    grid = np.linspace(widths.min(), widths.max(), 100)
    keys = [Key("mean over layers", INK, marker="D"), Key("one layer", QUIET, marker="o")]
    predicted = predicted_share(variant)
    if predicted:
        at = np.array(predicted) * 100
        order = np.argsort(widths)
        # The law is a curve in the width; where the file predicts something else, its points are joined.
        law = 100 / (1 / widths).sum() / grid
        if np.allclose(np.interp(widths[order], grid, law), at[order], rtol=0.02):
            axes.plot(grid, law, color=QUIET, linewidth=1.2, linestyle=DASHES[1])
        else:
            axes.plot(widths[order], at[order], color=QUIET, linewidth=1.2, linestyle=DASHES[1])
        keys.append(Key("predicted", QUIET, DASHES[1]))
    for layer, row in enumerate(rows):
        # Beside each other, so that layers that agree can be seen.
        aside = (layer - (len(rows) - 1) / 2) * 0.014 * (widths.max() - widths.min())
        axes.plot(widths + aside, 100 * np.array(row), "o", color="none", markeredgecolor=QUIET, markersize=4, zorder=3)
    colours = plotting.size_colours(variant["widths"])
    for width, share in zip(variant["widths"], middle):
        axes.plot(width, 100 * share, "D", color=colours[width], markersize=6)
    axes.set_ylim(0, 100 * max(max(max(row) for row in rows), max(predicted or [0])) * 1.12)
    axes.set(xlabel="width of the expert", ylabel="share of activations (%)")
    return keys


def share_figure(results):
    figure = Figure(
        "share",
        "Which experts are used",
        "Over training: the part of all activations that each expert gets; one line for each expert, dark and thick "
        "for wide ones, light and thin for narrow ones (mean over layers, first seed). At the end: the shares (mean "
        "over seeds) against the width. Dashed: the prediction "
        "(1/<i>h<sub>i</sub></i>)/Σ<sub><i>j</i></sub>(1/<i>h<sub>j</sub></i>); an expert is active for <i>k</i> times "
        "that part of the tokens.",
    )
    main, reference = main_variant(results), baseline(results)
    leading = [v for v in (main, reference) if v is not None]
    rest = [v for v in results["variants"] if not is_dense(v) and all(v is not other for other in leading)]
    for variant in leading + rest:
        folded = variant not in leading and len(results["variants"]) > MOST_LINES
        figure.add(f"{title(variant)}: over training", draw_shares, variant, folded=folded)
        if is_heterogeneous(variant):
            figure.add(f"{title(variant)}: at the end", draw_final_shares, variant, folded=folded)
    return figure


FIGURES = (loss_figure, width_figure, share_figure, difficulty_figure, distance_figure, synergy_figure)


def draw_all(results):
    """Every figure whose data are in the file."""
    return [figure for figure in (draw(results) for draw in FIGURES) if figure.panels or figure.folded]


def readme_figure(results):
    """The share of activations per expert beside the activated width, as one picture; None without data."""
    main, reference = main_variant(results), baseline(results)
    if main is None:
        return None
    drawing, (left, right) = plotting.new(columns=2, size=(4.9, 3.3))
    variants = [v for v in (reference, main) if v is not None]
    look = looks(results, variants)
    if draw_shares(left, main) is None or draw_width(right, results, variants, look, second_axis=False) is None:
        plotting.close(drawing)
        return None
    left.set_title("Share of activations, by width of the expert")
    right.set_title("Activated width of a token")
    labels = []
    for variant in variants:
        name = "unequal" if variant is main else "equal"
        words = f"{name} widths:\n{final_mean(variant, 'activated_width'):.1f}"
        if variant.get("predicted_activated_width") is not None:
            words += f", predicted {variant['predicted_activated_width']:.1f}"
        labels.append((final_mean(variant, "activated_width"), words, look[variant["name"]][0]))
    plotting.end_labels(right, labels, gap=0.16)
    return drawing
