# SPDX-License-Identifier: MIT
"""The plots of the benchmark report. Tokens are on a logarithmic axis; a panel for each shape and number of threads."""

from report.plotting import DASHES, INK, PALETTE, Key
from report.series import Figure

from .results import OURS, PAIRS, curve, joint_spreads, ordered, pick, ratios


def lines(axes, curves, label, logarithmic=False, order=(), spreads=None):
    """Draws {words: {tokens: value}} and a line at 1; returns the legend, or None where there is nothing to draw.

    `spreads`, {words: {tokens: relative spread}}, are drawn as bars.

    Words that stand in `order` have the same colour in every panel.
    """
    curves = {words: points for words, points in curves.items() if points}
    if not curves:
        return None
    keys = []
    for words, points in curves.items():
        index = ordered([*order, *curves]).index(words)
        colour, dashes = PALETTE[index % len(PALETTE)], DASHES[index // len(PALETTE) % len(DASHES)]
        known = (spreads or {}).get(words, {})
        bars = [value * (known.get(tokens) or 0) for tokens, value in points.items()]
        axes.errorbar(list(points), list(points.values()), yerr=bars, color=colour, linestyle=dashes, marker="o",
                      markersize=3.5, elinewidth=0.8, capsize=2)  # fmt: skip
        keys.append(Key(words, colour, dashes))
    axes.set_xscale("log", base=2)
    if logarithmic:
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.set_ylim(0, 1.08 * max(1, *(value for points in curves.values() for value in points.values())))
    ticks = sorted({tokens for points in curves.values() for tokens in points})
    axes.set_xticks(ticks, [str(tokens) for tokens in ticks])
    axes.minorticks_off()
    axes.set_xlabel("tokens")
    axes.set_ylabel(label)
    axes.axhline(1, color=INK, linewidth=0.8)
    return keys


def groups(entries):
    """(words, folded, entries) for each shape and number of threads; more than one thread is shown on request."""
    for shape in ordered(entry["shape"] for entry in entries):
        for threads in sorted({entry["threads"] for entry in entries}):
            words = shape if threads == 1 else f"{shape}, {threads} threads"
            yield words, threads > 1, pick(entries, shape=shape, threads=threads)


def efficiency(results):
    drawn = Figure(
        "efficiency",
        "Efficiency",
        "The time that the limits of this machine allow, the larger of FLOPs ÷ peak and bytes of the activated weights "
        "÷ memory bandwidth, divided by the time it took; both limits were measured within seconds of it. Tokens spread "
        "evenly. One line per data type; a CPU without products of bfloat16 or bytes has the peak of float for them, which "
        "16-bit integer products exceed.",
    )
    for words, folded, cells in groups(pick(results["layer"], routing="uniform", subject=OURS)):
        curves = {dtype: curve(pick(cells, dtype=dtype), "efficiency") for dtype in ordered(c["dtype"] for c in cells)}
        spreads = {dtype: curve(pick(cells, dtype=dtype), "spread") for dtype in curves}
        drawn.add(words, lines, curves, "efficiency", False, (), spreads, folded=folded)
    return drawn


def competitors(results):
    drawn = Figure(
        "competitors",
        "Beside others",
        "Time of each competitor ÷ time of hmoe on the same layer with the same tokens, threads and data type: above 1, "
        "hmoe is faster. Competitors written in C++ get the routing for nothing; hmoe and those in Python compute it.",
    )
    order = ordered(cell["subject"] for cell in results["layer"] if cell["subject"] != OURS)
    for words, folded, cells in groups(pick(results["layer"], routing="uniform")):
        for dtype in ordered(cell["dtype"] for cell in cells):
            same = pick(cells, dtype=dtype)
            ours = curve(pick(same, subject=OURS))
            others = [subject for subject in ordered(cell["subject"] for cell in same) if subject != OURS]
            curves = {subject: ratios(curve(pick(same, subject=subject)), ours) for subject in others}
            spreads = {subject: joint_spreads(pick(same, subject=subject), pick(same, subject=OURS)) for subject in others}
            drawn.add(f"{words}, {dtype}", lines, curves, "times hmoe's time", True, order, spreads, folded=folded)
    return drawn


def unequal(results):
    drawn = Figure(
        "unequal",
        "Unequal against equal widths",
        "Time per FLOP of the layer with unequal widths ÷ that of its twin with equal widths and as many parameters: at "
        "1, unequal widths cost nothing. Beside it, what padding to the widest expert costs: time of the padded layer ÷ "
        "time of the unequal one.",
    )
    cells = pick(results["layer"], routing="uniform", dtype="f32")
    for threads in sorted({cell["threads"] for cell in cells}):
        for narrow, equal in PAIRS:
            here = pick(cells, threads=threads)
            speed = {shape: curve(pick(here, shape=shape, subject=OURS), "gflops") for shape in (narrow, equal)}
            padded = ratios(curve(pick(here, shape=narrow, subject="padded")), curve(pick(here, shape=narrow, subject=OURS)))
            curves = {"unequal ÷ equal, per FLOP": ratios(speed[equal], speed[narrow]), "padded ÷ unequal": padded}
            words = narrow if threads == 1 else f"{narrow}, {threads} threads"
            drawn.add(words, lines, curves, "ratio of times", folded=threads > 1)
    return drawn


def training(results):
    drawn = Figure(
        "training",
        "Training",
        "Backward ÷ forward, and a whole training step (forward, auxiliary losses, backward, AdamW) of each competitor ÷ "
        "that of hmoe.",
    )
    for words, folded, cells in groups(results["training"]):
        times = {
            (subject, phase): curve(pick(cells, subject=subject, phase=phase))
            for subject in ordered(cell["subject"] for cell in cells)
            for phase in ("forward", "backward", "step")
        }
        curves = {"hmoe: backward ÷ forward": ratios(times.get((OURS, "backward"), {}), times.get((OURS, "forward"), {}))}
        for (subject, phase), points in times.items():
            if phase == "step" and subject != OURS:
                curves[f"step: {subject} ÷ hmoe"] = ratios(points, times.get((OURS, "step"), {}))
        drawn.add(words, lines, curves, "ratio of times", folded=folded)
    return drawn


def routing(results):
    drawn = Figure(
        "routing",
        "Skewed routing",
        "Efficiency when tokens spread evenly, in proportion to 1, ½, ⅓ … (Zipf), or all to the same few experts "
        "(collapsed).",
    )
    spreads = ordered(cell["routing"] for cell in results["layer"])
    for words, folded, cells in groups(pick(results["layer"], subject=OURS, dtype="f32")):
        curves = {spread: curve(pick(cells, routing=spread), "efficiency") for spread in spreads}
        if len([points for points in curves.values() if points]) > 1:
            drawn.add(words, lines, curves, "efficiency", folded=folded)
    return drawn


def draw_all(results):
    """The figures that have something to show."""
    drawn = [draw(results) for draw in (efficiency, competitors, unequal, routing, training)]
    return [figure for figure in drawn if figure.panels or figure.folded]
