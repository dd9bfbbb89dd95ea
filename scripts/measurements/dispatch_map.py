# SPDX-License-Identifier: MIT
"""The map of winners as one SVG for a page that has no styles: who wins where, and by how much."""

from html import escape

from .dispatch_charts import GRID, INK, QUIET, colour, text
from .dispatch_findings import percent
from .dispatch_results import margin, measured, points
from .results import ordered

CELL, ROW, LABEL, GAP, TITLE = 92, 34, 92, 6, 46
HEAD = 58


def panels(results):
    """[(title, loads, tokens, {(load, tokens): (winner, margin, told)})]: f32 forward passes of each shape on all threads, and
    the other formats as loads of their own."""
    cells = [c for c in measured(results) if c["phase"] == "forward" and not c.get("held_out")]
    threads = max((c["threads"] for c in cells), default=0)
    found = {}
    for (shape, form, tokens, load, _, used), strategies in points(c for c in cells if c["threads"] == threads).items():
        if (won := margin(strategies)) is not None:
            found.setdefault(shape, {})[load if form == "f32" else f"{form}, {load}", tokens] = won
    return [
        (shape, ordered(load for load, _ in own), sorted({tokens for _, tokens in own}), own)
        for shape, own in found.items() if len(own) > 1
    ]  # fmt: skip


def field(x, y, won, names):
    winner, ahead, told = won
    tint = colour(winner["strategy"], names)
    fill, ink = (tint, "#ffffff") if told else ("#ffffff", INK)
    words = f"{'+' if told else '≈ '}{percent(ahead)}"
    return (
        f'<rect x="{x + 2}" y="{y + 2}" width="{CELL - 4}" height="{ROW - 4}" rx="4" fill="{fill}" stroke="{tint}" '
        'stroke-width="2"/>'
        + text(x + CELL / 2, y + 15, winner["strategy"], fill=ink)
        + text(x + CELL / 2, y + 27, words, size=9, fill=ink)
    )


def panel(left, top, title, loads, tokens, own, names):
    body = [text(left, top + 16, f"{title}", "start", 13, extra=' font-weight="600"')]
    body += [text(left + LABEL + CELL * i + CELL / 2, top + 36, f"{n:,} token{'s' if n > 1 else ''}", size=10, fill=QUIET)
             for i, n in enumerate(tokens)]  # fmt: skip
    for row, load in enumerate(loads):
        y = top + TITLE + ROW * row
        body.append(text(left + LABEL - GAP, y + ROW / 2 + 4, load, "end", 10))
        for column, n in enumerate(tokens):
            x = left + LABEL + CELL * column
            if (load, n) in own:
                body.append(field(x, y, own[load, n], names))
            else:
                body.append(f'<rect x="{x + 2}" y="{y + 2}" width="{CELL - 4}" height="{ROW - 4}" rx="4" fill="{GRID}"/>')
    return body


def svg(results, command):
    """One picture, shape below shape; "" where no shape has two points."""
    shown = panels(results)
    if not shown:
        return ""
    names = ordered(c["strategy"] for c in results["cells"])
    run = (results["runs"] or [{"run": "unknown CPU", "threads": "?"}])[-1]
    wide = LABEL + CELL * max(len(tokens) for _, _, tokens, _ in shown) + GAP
    body = [
        text(GAP, 18, "Quickest dispatch strategy, and how much longer the next one takes", "start", 14),
        text(GAP, 35, f"{run['run']}, {run['threads']} threads: {command}", "start", 10, QUIET),
        text(GAP, 49, "A frame: less than twice the noise, either may be quicker. Forward, f32 where no format is named.",
             "start", 10, QUIET),
    ]  # fmt: skip
    top = HEAD
    for title, loads, tokens, own in shown:
        body += panel(GAP, top, title, loads, tokens, own, names)
        top += TITLE + ROW * len(loads) + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape("Map of the quickest dispatch strategies")}" '
        f'viewBox="0 0 {wide} {top}" width="{wide}" height="{top}" font-family="system-ui, sans-serif">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(body)}</svg>\n'
    )
