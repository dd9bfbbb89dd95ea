# SPDX-License-Identifier: MIT
"""What a run of scripts/bench peers shows, in sentences with their numbers. Cells are those of dispatch_results, with
hmoe's peers in the place of strategies; `ratio` is a subject's time ÷ hmoe's, the median over rounds."""

from statistics import median

from .dispatch_findings import percent, place
from .dispatch_results import measured, points
from .results import ordered

OURS = "hmoe"
COLUMNS = ("name", "shape", "format", "strategy", "tokens", "load", "threads", "seconds", "q25", "q75", "runs", "ratio", "ratio_q25",
           "ratio_q75", "difference", "bytes_per_weight", "copies", "version", "flops", "bytes", "peak", "dram", "efficiency",
           "error")  # fmt: skip
NEAR = 0.02  # of a time: what two that differ by less are called equally fast
COARSER = 2  # a result with more than that many times the error of hmoe is none of the same work; tokens in bfloat16 alone make 1.6


def point_of(cell):
    return tuple(cell[key] for key in ("shape", "format", "tokens", "load", "phase", "threads"))


def peers_of(results):
    """Cells of peers that were measured beside hmoe."""
    return [cell for cell in measured(results) if cell["strategy"] != OURS and "ratio" in cell]


def ours_of(results):
    """{point: hmoe's cell}"""
    return {point: own[OURS] for point, own in points(measured(results)).items() if OURS in own}


def error_ratio(cell, own):
    """Its error ÷ hmoe's in the same format. Float is exact enough for either."""
    return 1.0 if cell["format"] == "f32" else cell["difference"] / own["difference"]


def comparable(cell, own):
    return error_ratio(cell, own) <= COARSER


def of_like_error(results):
    """The results without those of peers whose errors are larger than COARSER allows."""
    ours = ours_of(results)
    return results | {"cells": [c for c in measured(results) if (own := ours.get(point_of(c))) and comparable(c, own)]}


def best_peers(results):
    """[(best peer's cell, hmoe's)] of each point, of peers with errors like hmoe's."""
    found = []
    for cells in points(of_like_error(results)["cells"]).values():
        rivals = [cell for subject, cell in cells.items() if subject != OURS]
        if rivals:
            found.append((min(rivals, key=lambda cell: cell["ratio"]), cells[OURS]))
    return found


def told(cell):
    """Whether the peer is faster or slower than hmoe by more than NEAR and by more than rounds vary."""
    low, high = cell["ratio_q25"], cell["ratio_q75"]
    noise = 1.2533 * (high - low) / 1.349 / cell["runs"] ** 0.5
    return abs(cell["ratio"] - 1) > max(NEAR, 2 * noise)


def lead(results):
    races = best_peers(results)
    if not races:
        return "This run has no point at which a peer was measured beside hmoe."
    lost = [cell for cell, _ in races if cell["ratio"] < 1 - NEAR and told(cell)]
    near = [cell for cell, _ in races if abs(cell["ratio"] - 1) <= NEAR or not told(cell)]
    text = (
        f"At {len(races)} points hmoe was measured beside its peers: it is the fastest at {len(races) - len(lost) - len(near)}, "
        f"as fast as the best of them to within {percent(NEAR)} or the noise at {len(near)}, and slower at {len(lost)}."
    )
    if lost:
        worst = min(lost, key=lambda cell: cell["ratio"])
        text += f" It is furthest behind with {place(worst)}: {worst['strategy']} takes {worst['ratio']:.2f} times as long."
    return text


def by_peer(results):
    """A sentence for each peer."""
    ours, texts = ours_of(results), []
    for name in ordered(cell["strategy"] for cell in peers_of(results)):
        own = [cell for cell in peers_of(results) if cell["strategy"] == name]
        fair = [cell for cell in own if comparable(cell, ours[point_of(cell)])]
        if not fair:
            texts.append(f"{name}: its errors are more than {COARSER} times hmoe's at all {len(own)} points.")
            continue
        faster = [cell for cell in fair if cell["ratio"] < 1 - NEAR and told(cell)]
        least, most = (pick(fair, key=lambda cell: cell["ratio"]) for pick in (min, max))
        text = (
            f"{name} takes {median(cell['ratio'] for cell in fair):.2f} times as long as hmoe in the median of {len(fair)} points, "
            f"{least['ratio']:.2f} times at least ({place(least)}) and {most['ratio']:.2f} times at most ({place(most)})"
        )
        text += f"; it is the faster one at {len(faster)}." if faster else "."
        if len(own) > len(fair):
            text += f" {len(own) - len(fair)} further points do not count: its errors there are more than {COARSER} times hmoe's."
        texts.append(text)
    return texts


def unequal(results):
    """Where widths are unequal: the best peer, which pads."""
    widths = {name: shape["widths"] for name, shape in results["shapes"].items()}
    found = [c for c, _ in best_peers(results) if len(set(widths.get(c["shape"], [0]))) > 1 and c["tokens"] >= 64]
    if not found:
        return ""
    worst = min(found, key=lambda cell: cell["ratio"])
    return (
        f"With unequal widths and 64 tokens or more the best peer takes {worst['ratio']:.2f} times as long or more "
        f"({place(worst)}: {worst['strategy']})."
    )


def efficiency(results):
    texts = []
    for form in ordered(cell["format"] for cell in measured(results)):
        own = [c for c in ours_of(results).values() if c["format"] == form]
        parts = []
        for words, inside in (("up to 4 tokens", lambda t: t <= 4), ("8 to 64", lambda t: 4 < t <= 64), ("more", lambda t: t > 64)):
            values = [c["efficiency"] for c in own if inside(c["tokens"])]
            if values:
                parts.append(f"{min(values):.2f} to {max(values):.2f} with {words}")
        if parts:
            texts.append(f"{form}: {', '.join(parts)}")
    return f"Efficiency of hmoe (time that the measured limits allow ÷ time): {'; '.join(texts)}." if texts else ""


def findings(results):
    texts = [*by_peer(results), unequal(results), efficiency(results)]
    missing = {c["strategy"] for c in results["cells"] if c.get("error")} - {c["strategy"] for c in measured(results)}
    if missing:
        texts.append(f"Not measured at all: {', '.join(sorted(missing))}; the reasons are at the end of this page.")
    return [text for text in texts if text]


def markdown(results, command=""):
    """The table of ratios: a row for each layer, format, load, number of threads and peer."""
    cells, ours = peers_of(results), ours_of(results)
    tokens = sorted({cell["tokens"] for cell in cells})
    head = ["layer", "format", "load, threads", "peer", *(f"{count}" for count in tokens), "error (hmoe's)", "bytes per weight"]
    rows = [head, ["---"] * 4 + ["---:"] * (len(tokens) + 2)]
    for key in ordered(tuple(cell[part] for part in ("shape", "format", "load", "threads", "strategy")) for cell in cells):
        own = [cell for cell in cells if tuple(cell[part] for part in ("shape", "format", "load", "threads", "strategy")) == key]
        found, first = {cell["tokens"]: f"{cell['ratio']:.2f}" for cell in own}, own[0]
        error = f"{first['difference']:.2g} ({ours[point_of(first)]['difference']:.2g})"
        rows.append([*key[:2], f"{key[2]}, {key[3]}", key[4], *(found.get(count, "") for count in tokens), error,
                     f"{first['bytes_per_weight']:.2f}"])  # fmt: skip
    cpu = results["runs"][-1]["run"] if results["runs"] else "an unknown CPU"
    lines = [f"Time of the peer ÷ that of hmoe on {cpu} by tokens (`{command}`).", "", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join([*lines, "", lead(results), "", *findings(results)]) + "\n"
