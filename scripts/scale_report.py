#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes a table and a plot of what scripts/scale has simulated.

usage: scale_report.py NUMBERS.jsonl --table FILE.md --plot FILE.svg
"""
import argparse
import json
import math
from pathlib import Path

PASSES = [  # placement, chunks, name, colour
    ("round_robin", 1, "in turn", "#999999"),
    ("by_cost", 1, "by size", "#0072b2"),
    ("replicas", 1, "by size, replicas", "#009e73"),
    ("replicas", 3, "by size, replicas, overlap", "#d55e00"),
]
PLATFORMS = {
    "ethernet": "100 Gb/s Ethernet, 16 cores for each rank",
    "gpus": "nodes of 8 GPUs",
}


KINDS = {
    "forward": "the forward pass of one layer",
    "step": "the training step of one layer: forward, backward and sums of gradients, without the optimiser",
}
SHORT = {"forward": "a forward pass", "step": "a training step"}


def read(path):
    """seconds[kind][platform][ranks][placement, chunks]"""
    seconds = {kind: {} for kind in KINDS}
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        try:
            entry = json.loads(line)
            of_kind = seconds[entry["what"]]
            place = of_kind.setdefault(entry["platform"], {}).setdefault(entry["ranks"], {})
            place[entry["placement"], entry["chunks"]] = entry["seconds"]
        except (ValueError, KeyError) as error:
            raise SystemExit(f"{path}, line {number} is no result of a simulation: {error}")
    return seconds


def milliseconds(value):
    return f"{1e3 * value:,.0f}" if value >= 0.1 else f"{1e3 * value:.3g}"


def table(seconds):
    lines = []
    for kind, by_platform in seconds.items():
        if not by_platform:
            continue
        lines += [f"Simulated, not measured: milliseconds of {KINDS[kind]}, the slowest rank.", ""]
        lines += ["| machines | ranks | " + " | ".join(name for _, _, name, _ in PASSES) + " |",
                  "|---|---:|" + "---:|" * len(PASSES)]
        for platform, by_ranks in by_platform.items():
            for ranks, found in sorted(by_ranks.items()):
                cells = [milliseconds(found[p, c]) if (p, c) in found else "" for p, c, _, _ in PASSES]
                lines.append(f"| {PLATFORMS.get(platform, platform)} | {ranks:,} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def plot(seconds):
    width, height, left, bottom = 420, 280, 56, 44
    parts = []

    def panel(at_x, at_y, kind, platform, by_ranks):
        every = [s for found in by_ranks.values() for s in found.values()]
        low, high = math.log10(min(every)) - 0.05, math.log10(max(every)) + 0.05
        first, last = math.log2(min(by_ranks)), math.log2(max(by_ranks))

        def x(ranks):
            return at_x + left + (width - left - 20) * (
                (math.log2(ranks) - first) / (last - first) if last > first else 0.5)

        def y(value):
            return at_y + height - bottom - (height - bottom - 40) * (math.log10(value) - low) / (high - low)

        def text(x_of, y_of, words, anchor="middle", size=11):
            parts.append(f'<text x="{x_of:.1f}" y="{y_of:.1f}" text-anchor="{anchor}" font-size="{size}">{words}</text>')

        text(at_x + width / 2, at_y + 18, PLATFORMS.get(platform, platform), size=13)
        text(at_x + width / 2, at_y + 33, f"simulated: ms of {SHORT[kind]} of one layer")
        for ranks in sorted(by_ranks):
            text(x(ranks), at_y + height - bottom + 16, f"{ranks:,}")
        text(at_x + width / 2, at_y + height - bottom + 32, "ranks")
        for decade in range(math.floor(low), math.ceil(high) + 1):
            for factor in (1, 2, 5):
                value = factor * 10.0**decade
                if low <= math.log10(value) <= high:
                    parts.append(f'<line x1="{at_x + left}" x2="{at_x + width - 20}" y1="{y(value):.1f}" '
                                 f'y2="{y(value):.1f}" stroke="#dddddd"/>')
                    text(at_x + left - 6, y(value) + 4, milliseconds(value), "end")
        for placement, chunks, _, colour in PASSES:
            points = [(x(r), y(found[placement, chunks])) for r, found in sorted(by_ranks.items())
                      if (placement, chunks) in found]
            line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts.extend(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points)

    kinds = [kind for kind in seconds if seconds[kind]]
    for row, kind in enumerate(kinds):
        for column, (platform, by_ranks) in enumerate(seconds[kind].items()):
            panel(column * width, row * height, kind, platform, by_ranks)
    legend = len(kinds) * height + 10
    for i, (_, _, name, colour) in enumerate(PASSES):
        at = 20 + i * 190
        parts.append(f'<rect x="{at}" y="{legend - 6}" width="12" height="4" fill="{colour}"/>'
                     f'<text x="{at + 18}" y="{legend}" font-size="11">{name}</text>')
    whole, tall = max(len(seconds[kind]) for kind in kinds), legend + 10
    whole = max(whole, 2) * width
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="{tall}" viewBox="0 0 {whole} {tall}" '
            f'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("numbers")
    parser.add_argument("--table", required=True)
    parser.add_argument("--plot", required=True)
    options = parser.parse_args()
    seconds = read(options.numbers)
    if not any(seconds.values()):
        raise SystemExit(f"{options.numbers} has no results")
    Path(options.table).write_text(table(seconds))
    Path(options.plot).write_text(plot(seconds))


if __name__ == "__main__":
    main()
