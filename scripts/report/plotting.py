# SPDX-License-Identifier: MIT
"""The look of the figures, and how a figure becomes SVG."""

import io
import re
from dataclasses import dataclass
from html import escape

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib import colormaps

INK, QUIET, GRID, BAND = "#222222", "#6b6b6b", "#e4e4e4", "#ececec"
# Okabe and Ito's palette: told apart with any colour vision. Yellow is left out: too light on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)))

PANEL = (4.5, 3.15)  # inches: two beside each other on a desk, one below the other on a phone

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "text.color": INK,
    # Token and variant names may hold a dollar sign: never read them as formulas.
    "text.parse_math": False,
    # Letters become outlines, so that the figure looks the same in every browser.
    "svg.fonttype": "path",
    "svg.hashsalt": "hmoe",
    "savefig.facecolor": "white",
}


matplotlib.rcParams.update(STYLE)


@dataclass(frozen=True)
class Key:
    """One entry of a panel's legend, which the page sets as text: it wraps, and cannot cover data."""

    words: str
    colour: str
    dashes: object = "-"
    marker: str = ""  # "o" hollow circle, "D" diamond, "" a line

    def svg(self):
        if self.marker == "o":
            mark = f'<circle cx="13" cy="5" r="3" fill="none" stroke="{self.colour}"/>'
        elif self.marker == "D":
            mark = f'<path d="M13 0l5 5-5 5-5-5z" fill="{self.colour}"/>'
        else:
            pattern = "" if self.dashes == "-" else ",".join(f"{2 * length:g}" for length in self.dashes[1])
            mark = (
                f'<path d="M0 5h26" stroke="{self.colour}" stroke-width="2.4" stroke-dasharray="{pattern or "none"}"/>'
            )
        return f'<svg class="key" width="26" height="10" viewBox="0 0 26 10" aria-hidden="true">{mark}</svg>'


@dataclass(frozen=True)
class Panel:
    title: str
    keys: list
    picture: str  # an <svg> element


def new(columns=1, size=PANEL):
    """A figure and its axes."""
    return plt.subplots(1, columns, figsize=(size[0] * columns, size[1]), layout="constrained")


def size_colours(widths):
    """{width: colour}, dark for wide: lightness alone tells small from large."""
    distinct = sorted(set(widths))
    if len(distinct) == 1:
        return {distinct[0]: QUIET}
    return {
        width: colormaps["viridis"](0.86 - 0.86 * index / (len(distinct) - 1)) for index, width in enumerate(distinct)
    }


def size_strokes(widths):
    """{width: line width}, so that size shows without any colour as well."""
    distinct = sorted(set(widths))
    return {width: 1.1 + 1.5 * index / max(len(distinct) - 1, 1) for index, width in enumerate(distinct)}


def spread(places, gap):
    """Moves label places apart to at least `gap`, keeping their order and their centre."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    clusters = []  # (sum of wanted places, number of labels); each is centred on its mean
    for index in order:
        clusters.append([places[index], 1])
        while len(clusters) > 1:
            (below, n), (above, m) = clusters[-2:]
            if above / m - below / n >= gap * (n + m) / 2:
                break
            clusters[-2:] = [[below + above, n + m]]
    placed = [total / count + gap * (k - (count - 1) / 2) for total, count in clusters for k in range(count)]
    result = [0.0] * len(places)
    for index, place in zip(order, placed):
        result[index] = place
    return result


def end_labels(axes, labels, gap=0.075):
    """Writes (y, text, colour) beside the right edge of the axes, none over another.

    Call it when the limits of the axes are final.
    """
    low, high = axes.get_ylim()
    places = spread([(y - low) / (high - low) for y, _, _ in labels], gap)
    for (y, words, colour), place in zip(labels, places):
        axes.annotate(
            words,
            xy=(1, (y - low) / (high - low)),
            xytext=(1.045, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=colour,
            va="center",
            fontsize=8.5,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 1},
        )


def svg(figure, name, words):
    """The figure as an <svg> element for a page that holds several of them."""
    with io.StringIO() as file:
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        drawn = file.getvalue()
    plt.close(figure)
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.S)
    # Identifiers must be unique in the page: each figure gets a prefix of its own.
    drawn = re.sub(r'\bid="', f'id="{name}-', drawn)
    drawn = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", drawn)
    # The page sets the size; the view box keeps the proportions.
    opening, rest = drawn.split(">", 1)
    opening = re.sub(r'\s(width|height)="[^"]*"', "", opening)
    return f'{opening} role="img" aria-label="{escape(words, quote=True)}">{rest}'.strip()


def close(figure):
    plt.close(figure)


def save(figure, path):
    """Writes a figure to a file of its own, as SVG or PNG."""
    figure.savefig(path, **({"metadata": {"Date": None}} if str(path).endswith(".svg") else {"dpi": 200}))
    plt.close(figure)
