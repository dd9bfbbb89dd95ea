# SPDX-License-Identifier: MIT
"""Plots of the dispatch report as SVG, written directly: the page needs nothing that pip installs."""

from dataclasses import dataclass, field
from html import escape
from math import ceil, floor, log10

# Okabe and Ito's palette, told apart with any colour vision; what is the same on every page has a colour of its own.
COLOURS = {
    "sorted": "#0072B2", "scattered": "#D55E00", "per_token": "#009E73", "blocked": "#CC79A7", "looped": "#E69F00",
    "dense": "#8a8a8a", "padded": "#56B4E9", "automatic": "#000000", "tuned": "#555555", "limit": "#222222",
}  # fmt: skip
OTHERS = ("#7B3FA0", "#6B8E23", "#A0522D", "#008B8B", "#B22222", "#4B0082", "#2F4F4F", "#DAA520")
INK, QUIET, GRID = "#222222", "#6b6b6b", "#e4e4e4"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400, 270, 56, 12, 12, 42


def colour(name, names=()):
    if name in COLOURS:
        return COLOURS[name]
    others = [other for other in names if other not in COLOURS]
    return OTHERS[(others.index(name) if name in others else 0) % len(OTHERS)]


@dataclass
class Figure:
    name: str
    heading: str
    caption: str  # HTML, written here: nothing in it comes from data
    panels: list = field(default_factory=list)
    folded: list = field(default_factory=list)


@dataclass(frozen=True)
class Key:
    words: str
    colour: str
    dashed: bool = False

    def svg(self):
        dashes = ' stroke-dasharray="5,4"' if self.dashed else ""
        return (
            '<svg class="key" width="26" height="10" viewBox="0 0 26 10" aria-hidden="true">'
            f'<path d="M0 5h26" stroke="{self.colour}" stroke-width="3"{dashes}/></svg>'
        )


@dataclass(frozen=True)
class Panel:
    title: str
    keys: list
    picture: str


def text(x, y, words, anchor="middle", size=11, fill=INK, extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{fill}"{extra}>{escape(words)}</text>'


def svg(label, body, height=HEIGHT):
    return (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="system-ui, sans-serif">{"".join(body)}</svg>'
    )


def number(value):
    if 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.0e}"


def ticks(low, high, logarithmic):
    if logarithmic:
        exponents = range(floor(log10(low)), ceil(log10(high)) + 1)
        wide = len(exponents) > 3
        return [m * 10.0**e for e in exponents for m in ((1,) if wide else (1, 2, 5)) if low <= m * 10.0**e <= high]
    step = 10.0 ** floor(log10((high - low) / 4 or 1))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= 5)
    return [step * i for i in range(ceil(low / step), floor(high / step) + 1)]


def lines(title, curves, x_label, y_label, logarithmic=True, bars=None, dashed=(), names=(), points_only=False):
    """A panel of {words: {x: y}} over a logarithmic x; `bars`, {words: {x: (low, high)}}, are drawn as error bars."""
    curves = {words: points for words, points in curves.items() if points}
    bars = bars or {}
    xs = sorted({x for points in curves.values() for x in points})
    values = [y for points in curves.values() for y in points.values()]
    values += [end for words in curves for pair in bars.get(words, {}).values() for end in pair]
    low, high = min(values), max(values)
    if logarithmic:
        low, high = low / 1.15, high * 1.15
    else:
        low, high = min(0.0, low), 1.08 * high if high > 0 else 1.0
    left, right = xs[0], xs[-1] if xs[-1] > xs[0] else 2 * xs[0]

    def place_x(x):
        return LEFT + 8 + (WIDTH - LEFT - RIGHT - 16) * log10(x / left) / log10(right / left)

    def place_y(y):
        share = log10(y / low) / log10(high / low) if logarithmic else (y - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    body = []
    for tick in ticks(low, high, logarithmic):
        y = place_y(tick)
        body.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>')
        body.append(text(LEFT - 6, y + 4, number(tick), "end"))
    x_ticks = xs if len(xs) <= 8 and not points_only else ticks(left, right, True)
    for tick in x_ticks:
        body.append(text(place_x(tick), HEIGHT - BOTTOM + 16, number(tick)))
    body.append(f'<path d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}" stroke="{QUIET}"/>')
    body.append(text((LEFT + WIDTH) / 2, HEIGHT - 8, x_label))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    body.append(text(13, middle, y_label, extra=f' transform="rotate(-90 13 {middle:.1f})"'))
    keys = []
    for words, points in curves.items():
        tint, dots = colour(words, names), sorted(points.items())
        path = "L".join(f"{place_x(x):.1f} {place_y(y):.1f}" for x, y in dots)
        dashes = ' stroke-dasharray="5,4"' if words in dashed else ""
        if not points_only:
            body.append(f'<path d="M{path}" fill="none" stroke="{tint}" stroke-width="1.8"{dashes}/>')
        for x, (below, above) in bars.get(words, {}).items():
            body.append(f'<path d="M{place_x(x):.1f} {place_y(below):.1f}V{place_y(above):.1f}" stroke="{tint}"/>')
        if words not in dashed:
            body += [f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="2.6" fill="{tint}"/>' for x, y in dots]
        keys.append(Key(words, tint, words in dashed))
    return Panel(title, keys, svg(f"{title}: {y_label} over {x_label}", body))


def scatter(title, groups, x_label, y_label, names=()):
    """A panel of {words: [(x, y)]}, both logarithmic, with lines at y = x and y = x ± 25 %."""
    every = [pair for pairs in groups.values() for pair in pairs]
    low, high = min(map(min, every)) / 1.3, max(map(max, every)) * 1.3

    def place(value, start, length):
        return start + length * log10(value / low) / log10(high / low)

    def px(x):
        return place(x, LEFT, WIDTH - LEFT - RIGHT)

    def py(y):
        return place(y, HEIGHT - BOTTOM, TOP + BOTTOM - HEIGHT)

    body = []
    for tick in ticks(low, high, True):
        body.append(f'<path d="M{LEFT} {py(tick):.1f}H{WIDTH - RIGHT}M{px(tick):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{GRID}"/>')
        body.append(text(LEFT - 6, py(tick) + 4, number(tick), "end"))
        body.append(text(px(tick), HEIGHT - BOTTOM + 16, number(tick)))
    for factor, dashes in ((1, ""), (1.25, ' stroke-dasharray="4,4"'), (0.75, ' stroke-dasharray="4,4"')):
        first, last = max(low, low / factor), min(high, high / factor)
        line = f"M{px(first):.1f} {py(first * factor):.1f}L{px(last):.1f} {py(last * factor):.1f}"
        body.append(f'<path d="{line}" stroke="{QUIET}"{dashes}/>')
    body.append(text((LEFT + WIDTH) / 2, HEIGHT - 8, x_label))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    body.append(text(13, middle, y_label, extra=f' transform="rotate(-90 13 {middle:.1f})"'))
    keys = []
    for words, pairs in groups.items():
        tint = colour(words, names)
        body += [f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.6" fill="{tint}" fill-opacity="0.75"/>' for x, y in pairs]
        keys.append(Key(words, tint))
    return Panel(title, keys, svg(f"{title}: {y_label} over {x_label}", body))


def stacked(title, rows, unit):
    """A panel of {words: {part: value}} as horizontal bars; parts have their colours in the order of the page."""
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    tints = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8a8a8a", "#7B3FA0", "#6B8E23", "#000000")
    longest = max(sum(row.values()) for row in rows.values())
    left, step = 82, 26
    height = TOP + step * len(rows) + 34
    body = []
    for tick in ticks(0, longest, False):
        x = left + (WIDTH - left - RIGHT) * tick / longest
        body.append(f'<path d="M{x:.1f} {TOP}V{height - 32}" stroke="{GRID}"/>')
        body.append(text(x, height - 18, number(tick)))
    for index, (words, row) in enumerate(rows.items()):
        x, y = left, TOP + step * index
        body.append(text(left - 6, y + 15, words, "end"))
        for part, value in row.items():
            wide = (WIDTH - left - RIGHT) * value / longest
            tint = tints[parts.index(part) % len(tints)]
            body.append(f'<rect x="{x:.1f}" y="{y + 3}" width="{wide:.1f}" height="{step - 8}" fill="{tint}"/>')
            x += wide
    body.append(text((left + WIDTH) / 2, height - 4, unit))
    keys = [Key(part, tints[index % len(tints)]) for index, part in enumerate(parts)]
    return Panel(title, keys, svg(f"{title}: {unit}", body, height))
