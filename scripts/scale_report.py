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


def read(path):
    """seconds[platform][ranks][placement, chunks]"""
    seconds = {}
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        try:
            entry = json.loads(line)
            place = seconds.setdefault(entry["platform"], {}).setdefault(entry["ranks"], {})
            place[entry["placement"], entry["chunks"]] = entry["seconds"]
        except (ValueError, KeyError) as error:
            raise SystemExit(f"{path}, line {number} is no result of a simulation: {error}")
    return seconds


def milliseconds(value):
    return f"{1e3 * value:,.0f}" if value >= 0.1 else f"{1e3 * value:.3g}"


def table(seconds):
    lines = ["Simulated, not measured: milliseconds of the forward pass of one layer, the slowest rank.", ""]
    lines += ["| machines | ranks | " + " | ".join(name for _, _, name, _ in PASSES) + " |",
              "|---|---:|" + "---:|" * len(PASSES)]
    for platform, by_ranks in seconds.items():
        for ranks, found in sorted(by_ranks.items()):
            cells = [milliseconds(found[p, c]) if (p, c) in found else "" for p, c, _, _ in PASSES]
            lines.append(f"| {PLATFORMS.get(platform, platform)} | {ranks:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(seconds):
    width, height, left, bottom = 420, 300, 56, 60
    parts = []
    for index, (platform, by_ranks) in enumerate(seconds.items()):
        every = [s for found in by_ranks.values() for s in found.values()]
        low, high = math.log10(min(every)) - 0.05, math.log10(max(every)) + 0.05
        first, last = math.log2(min(by_ranks)), math.log2(max(by_ranks))

        def x(ranks):
            return index * width + left + (width - left - 20) * (
                (math.log2(ranks) - first) / (last - first) if last > first else 0.5)

        def y(value):
            return height - bottom - (height - bottom - 40) * (math.log10(value) - low) / (high - low)

        def text(at_x, at_y, words, anchor="middle", size=11):
            parts.append(f'<text x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="{anchor}" font-size="{size}">{words}</text>')

        text(index * width + width / 2, 18, PLATFORMS.get(platform, platform), size=13)
        text(index * width + width / 2, 33, "simulated: ms of a forward pass of one layer")
        for ranks in sorted(by_ranks):
            text(x(ranks), height - bottom + 16, f"{ranks:,}")
        text(index * width + width / 2, height - bottom + 32, "ranks")
        for decade in range(math.floor(low), math.ceil(high) + 1):
            for factor in (1, 2, 5):
                value = factor * 10.0**decade
                if low <= math.log10(value) <= high:
                    parts.append(f'<line x1="{index * width + left}" x2="{(index + 1) * width - 20}" y1="{y(value):.1f}" '
                                 f'y2="{y(value):.1f}" stroke="#dddddd"/>')
                    text(index * width + left - 6, y(value) + 4, milliseconds(value), "end")
        for placement, chunks, _, colour in PASSES:
            points = [(x(r), y(found[placement, chunks])) for r, found in sorted(by_ranks.items())
                      if (placement, chunks) in found]
            line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
    for i, (_, _, name, colour) in enumerate(PASSES):
        at = 20 + i * 190
        parts.append(f'<rect x="{at}" y="{height - 16}" width="12" height="4" fill="{colour}"/>'
                     f'<text x="{at + 18}" y="{height - 10}" font-size="11">{name}</text>')
    whole = max(len(seconds), 2) * width
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="{height}" viewBox="0 0 {whole} {height}" '
            f'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("numbers")
    parser.add_argument("--table", required=True)
    parser.add_argument("--plot", required=True)
    options = parser.parse_args()
    seconds = read(options.numbers)
    if not seconds:
        raise SystemExit(f"{options.numbers} has no results")
    Path(options.table).write_text(table(seconds))
    Path(options.plot).write_text(plot(seconds))


if __name__ == "__main__":
    main()
