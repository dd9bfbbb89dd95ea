# SPDX-License-Identifier: MIT
"""The page on dispatch strategies. Everything from the results goes through `escape`."""

from html import escape

from report import document
from report.document import figure, folded, section
from report.tables import Table
from report.tables import html as table_html

from .dispatch_charts import Figure, colour, lines, scatter, stacked
from .dispatch_findings import findings, percent, unreliable
from .dispatch_results import PICKS, margin, measured, points, ranking
from .results import ordered, pick

HEADLINE = "Dispatch strategies side by side"
# Names of strategies on their colours; cells of the map wrap nowhere, the table scrolls.
MAP_STYLE = """<style>
.map { width: auto; border-collapse: separate; border-spacing: 3px; }
.map td { padding: 0.35rem 0.6rem; border: 0; border-radius: 4px; color: #fff; white-space: nowrap; text-align: center; }
.map td.near { color: var(--ink); background: #fff; border: 2px solid; padding: calc(0.35rem - 2px) calc(0.6rem - 2px); }
.map td.none { background: #f0f0f0; }
.map th { border: 0; padding: 0.3rem 0.6rem 0.3rem 0; font-weight: 500; }
.map small { color: inherit; }
</style>"""


def titled(shape, form, phase, threads, load=""):
    parts = [shape, form, *([phase] if phase == "training" else []), *([load] if load else [])]
    return f"{', '.join(parts)}, {threads} thread{'s' if threads > 1 else ''}"


def lead(results):
    if not measured(results):
        return "This run measured nothing."
    if reason := unreliable(results):
        return (
            f"This run is too noisy to tell strategies apart: {reason}. The numbers of this page are what was measured; repeat "
            "the run while nothing else uses the machine before any of them is quoted."
        )
    return next(iter(findings(results)), "This run has too few strategies to compare any.")


def findings_section(results):
    texts = findings(results) if unreliable(results) else findings(results)[1:]
    if not results["complete"] and measured(results):
        texts.append("The run did not come to its end: the same command goes on with it.")
    return section("findings", "What it shows", "\n".join(f"<p>{escape(words)}</p>" for words in texts))


def map_cell(strategies, names):
    found = margin(strategies) if strategies else None
    if found is None:
        return '<td class="none"></td>'
    winner, ahead, told = found
    words = f"{escape(winner['strategy'])}<small>{'+' if told else '≈ '}{percent(ahead)}</small>"
    tint = colour(winner["strategy"], names)
    return f'<td style="background:{tint}">{words}</td>' if told else f'<td class="near" style="border-color:{tint}">{words}</td>'


def kind_of(cell):
    return cell["shape"], cell["format"], cell["phase"], cell["threads"]


WINNERS = (
    "The quickest strategy that drops nothing, and how much longer the next one takes. A frame instead of a filled field: less "
    "than twice the noise, so either may be the quicker one."
)


def is_first(form, phase, loads):
    return form == "f32" and phase == "forward" and len(loads) > 1


def winners_section(results, names, words=WINNERS, is_shown=is_first):
    """Maps of the quickest; those that are not shown at once are folded."""
    cells = measured(results)
    maps = []
    for *key, held_out in ordered((*kind_of(c), bool(c.get("held_out"))) for c in cells):
        own = [c for c in cells if (*kind_of(c), bool(c.get("held_out"))) == (*key, held_out)]
        table, found = sorted({c["tokens"] for c in own}), points(own)
        loads = ordered(c["load"] for c in own)
        head = "".join(f"<th>{tokens}</th>" for tokens in table)
        rows = "\n".join(
            f"<tr><th>{escape(load)}</th>"
            + "".join(
                map_cell(found.get((key[0], key[1], tokens, load, key[2], key[3])), names) for tokens in table
            )
            + "</tr>"
            for load in loads
        )
        heading = titled(*key) + (", held out" if held_out else "")
        body = (
            f'<h3>{escape(heading)}</h3>\n<div class="scroll" tabindex="0"><table class="map">'
            f"<thead><tr><th>load, tokens</th>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
        )
        maps.append((is_shown(key[1], key[2], loads) and not held_out, body))
    if not maps:
        return ""
    shown = "\n".join(body for shows, body in maps if shows)
    more = [body for shows, body in maps if not shows]
    extra = folded(f"Other formats, phases and threads, and held-out points ({len(more)})", "\n".join(more)) if more else ""
    return section("winners", "Who wins where", f"{MAP_STYLE}\n<p>{escape(words)}</p>\n{shown}\n{extra}")


def strategy_curves(cells, value):
    return {
        name: {c["tokens"]: value(c) for c in pick(cells, strategy=name) if value(c) is not None}
        for name in ordered(c["strategy"] for c in cells)
    }


def times(results, names):
    drawn = Figure(
        "times", "Time against tokens",
        "Milliseconds of a pass over a load that spreads evenly; bars are quartiles. The dashed line is what the limits of "
        "the machine allow: the larger of FLOPs ÷ peak and bytes of the used weights ÷ memory bandwidth, measured within "
        "seconds of it, for the weights as they are stored.",
    )  # fmt: skip
    cells = pick(measured(results), load="uniform")
    for key in ordered((c["shape"], c["format"], c["phase"], c["threads"]) for c in cells):
        own = pick(cells, shape=key[0], format=key[1], phase=key[2], threads=key[3])
        if len({c["tokens"] for c in own}) < 2:
            continue
        curves = strategy_curves(own, lambda c: 1e3 * c["seconds"])
        bars = strategy_curves(own, lambda c: (1e3 * c["q25"], 1e3 * c["q75"]))
        curves["limit"] = {c["tokens"]: 1e3 * max(c["flops"] / c["peak"], c["bytes"] / c["dram"]) for c in own}
        panel = lines(titled(*key), curves, "tokens", "ms", bars=bars, dashed=("limit",), names=names)
        (drawn.panels if key[1] == "f32" and key[2] == "forward" and len(drawn.panels) < 4 else drawn.folded).append(panel)
    return drawn


def stages(results):
    drawn = Figure(
        "stages", "Stages",
        "Milliseconds of each stage in one pass, those of all workers together, forward and backward under one name. Where "
        "stages are fused, one contains the other (docs/profiling.md).",
    )  # fmt: skip
    for point, strategies in points(pick(measured(results), load="uniform")).items():
        rows = {}
        for name, cell in strategies.items():
            parts = {}
            for key, value in cell.items():
                if key.startswith("stage "):
                    part = key.removeprefix("stage ").removeprefix("backward ")
                    parts[part] = parts.get(part, 0) + 1e3 * value
            if parts and name not in ("dense", "per_token", *PICKS):
                rows[name] = parts
        if rows and point[2] in (1, 64, 1024):
            tokens = f"{point[2]} token{'s' if point[2] > 1 else ''}"
            panel = stacked(titled(point[0], point[1], point[4], point[5], tokens), rows, "ms")
            (drawn.panels if len(drawn.panels) < 4 else drawn.folded).append(panel)
    return drawn


def skew(results, names):
    drawn = Figure(
        "skew", "What skew costs",
        "Time of the best strategy with a load ÷ that with tokens spread evenly: below 1, fewer experts are read; above 1, "
        "the busiest one keeps the others waiting.",
    )  # fmt: skip
    best = {p: ranking(s)[0] for p, s in points(pick(measured(results), phase="forward")).items() if ranking(s)}
    for key in ordered((p[0], p[1], p[5]) for p in best):
        curves = {}
        for (shape, form, tokens, load, phase, threads), cell in best.items():
            even = best.get((shape, form, tokens, "uniform", phase, threads))
            if (shape, form, threads) == key and load != "uniform" and even:
                curves.setdefault(load, {})[tokens] = cell["seconds"] / even["seconds"]
        if any(len(points_) > 1 for points_ in curves.values()):
            panel = lines(titled(key[0], key[1], "forward", key[2]), curves, "tokens", "÷ uniform", False, names=ordered(curves))
            (drawn.panels if len(drawn.panels) < 4 else drawn.folded).append(panel)
    return drawn


def spread_words(results, shape):
    widths = results["shapes"].get(shape, {}).get("widths")
    if not widths or not sum(widths):
        return shape
    mean = sum(widths) / len(widths)
    return f"{shape} (spread {(sum((w - mean) ** 2 for w in widths) / len(widths)) ** 0.5 / mean:.2f})"


def capacities(results):
    """Two figures: what padding wastes, and what capacities drop; both follow from the loads, without any time."""
    waste = Figure(
        "padding", "What padding wastes",
        "Share of the FLOPs that go into spare rows where every expert runs its capacity, over the capacity factor, for 1,024 "
        "tokens; spread is standard deviation ÷ mean of the widths.",
    )  # fmt: skip
    drops = Figure(
        "drops", "Capacity by rows against by width",
        "Share of entries that are dropped, and FLOPs of the busiest expert ÷ the mean, over the capacity factor, with the "
        "same capacity for all experts (rows) and with one in proportion to width.",
    )  # fmt: skip
    entries = results["capacity"]
    for policy, words in (("by_factor", "by rows"), ("by_width", "by width")):
        for load in ordered(e["load"] for e in entries):
            curves = {}
            for e in pick(entries, capacity=policy, load=load):
                curves.setdefault(spread_words(results, e["shape"]), {})[e["factor"]] = e["wasted_flops"]
            if curves:
                panel = lines(f"{words}, {load}", curves, "capacity factor", "share of FLOPs", False, names=ordered(curves))
                (waste.panels if load in ("uniform", "hot") else waste.folded).append(panel)
    for shape in ordered(e["shape"] for e in entries):
        for load in ordered(e["load"] for e in pick(entries, shape=shape)):
            own = pick(entries, shape=shape, load=load)
            for value, label in (("dropped", "dropped"), ("imbalance", "busiest ÷ mean FLOPs")):
                curves = {
                    words: {e["factor"]: e[value] for e in pick(own, capacity=policy)}
                    for policy, words in (("by_factor", "by rows"), ("by_width", "by width"))
                }
                panel = lines(f"{spread_words(results, shape)}, {load}", curves, "capacity factor", label, False,
                              names=("by rows", "by width"))  # fmt: skip
                (drops.panels if len(drops.panels) < 4 and load == "uniform" else drops.folded).append(panel)
    return waste, drops


def memory(results, names):
    drawn = Figure(
        "memory", "Memory",
        "Megabytes of workspace at most, plan and outputs of experts included; in training without the tape. A load that "
        "spreads evenly.",
    )  # fmt: skip
    cells = [c for c in pick(measured(results), load="uniform") if c["workspace"]]
    for key in ordered((c["shape"], c["format"], c["phase"], c["threads"]) for c in cells):
        own = pick(cells, shape=key[0], format=key[1], phase=key[2], threads=key[3])
        if len({c["tokens"] for c in own}) > 1:
            panel = lines(titled(*key), strategy_curves(own, lambda c: c["workspace"] / 1e6), "tokens", "MB", names=names)
            (drawn.panels if key[1] == "f32" and len(drawn.panels) < 2 else drawn.folded).append(panel)
    return drawn


def model(results, names):
    drawn = Figure(
        "model", "Predicted against measured",
        "Milliseconds by the cost model with this machine's measured limits, over measured ones: a point for each cell of a "
        "strategy that the model knows. The line is equality, the dashed ones are 25 % off.",
    )  # fmt: skip
    cells = [c for c in measured(results) if c.get("predicted")]
    for words, own in (
        ("forward, f32", pick(cells, phase="forward", format="f32")),
        ("forward, packed", [c for c in pick(cells, phase="forward") if c["format"] != "f32"]),
        ("training", pick(cells, phase="training")),
    ):
        groups = {}
        for c in own:
            groups.setdefault(c["strategy"], []).append((1e3 * c["seconds"], 1e3 * c["predicted"]))
        if groups:
            drawn.panels.append(scatter(words, groups, "measured, ms", "predicted, ms", names))
    return drawn


def milliseconds(seconds):
    return f"{1e3 * seconds:.3g}"


def latency_section(results):
    cells = [c for c in measured(results) if "p99" in c and c["phase"] == "forward" and c["runs"] > 2]
    if not cells:
        return ""
    head = ["Layer", "Format", "Load", "Strategy", "Tokens", "Threads", "p50, ms", "p99, ms", "Runs"]
    rows = [
        [c["shape"], c["format"], c["load"], c["strategy"], str(c["tokens"]), str(c["threads"]), milliseconds(c["seconds"]),
         milliseconds(c["p99"]), str(c["runs"])]
        for c in cells
    ]  # fmt: skip
    first = [row for row in rows if row[2] == "uniform" and row[1] == "f32" and row[0] == rows[0][0]]
    body = "<p>Of single passes; with fewer than 100 runs, p99 is close to the longest of them.</p>\n"
    body += table_html(Table(head, first, 4)) if first else ""
    return section("latency", "Latency with 16 tokens or fewer", body + folded(f"All {len(rows)}", table_html(Table(head, rows, 4))))


def cells_section(results):
    cells = measured(results)
    if not cells:
        return ""
    head = ["Layer", "Format", "Load", "Phase", "Strategy", "Tokens", "Threads", "ms", "Quartiles", "Runs", "Predicted",
            "Efficiency", "Padding", "Dropped", "Imbalance", "MB"]  # fmt: skip
    rows = [
        [c["shape"], c["format"], c["load"], c["phase"], c["strategy"], str(c["tokens"]), str(c["threads"]),
         milliseconds(c["seconds"]), f"{milliseconds(c['q25'])} – {milliseconds(c['q75'])}", str(c["runs"]),
         milliseconds(c["predicted"]) if c.get("predicted") else "–", f"{c['efficiency']:.2f}", str(c["padding"]),
         str(c["dropped"]), f"{c['imbalance']:.1f}", f"{c['workspace'] / 1e6:.2f}"]
        for c in cells
    ]  # fmt: skip
    return section("cells", "All cells", folded(f"{len(rows)} measurements", table_html(Table(head, rows, 5))))


def failed_section(results):
    rows = [[c["name"], c["error"]] for c in results["cells"] if c.get("error")]
    rows += [[e["refused"], e["reason"]] for e in results["refused"]]
    return section("failed", "Not measured", table_html(Table(["What", "Why"], rows, 2))) if rows else ""


def cells_facts(results):
    """The machine, and its limits as they were measured beside the cells."""
    cells, facts = measured(results), []
    for run in results["runs"][-1:]:
        facts += [("CPU", run["run"]), ("Threads", str(run["threads"])), ("Compiler", run["compiler"])]
    for name, key, unit in (("Peak", "peak", "GFLOP/s"), ("Memory", "dram", "GB/s")):
        for form, threads in ordered((c["format"], c["threads"]) for c in cells):
            values = [1e-9 * c[key] for c in cells if (c["format"], c["threads"]) == (form, threads)]
            facts.append((f"{name}, {form}, {threads} threads", f"{min(values):.0f} to {max(values):.0f} {unit}"))
    return facts


def setup_section(results, command):
    cells = measured(results)
    facts = [("Command", command), ("Points", str(len(points(cells)))), ("Cells", str(len(cells))), *cells_facts(results)]
    head = ["Layer", "Format", "Threads", "GFLOP/s", "First read, GB/s", "Next read, GB/s", "By token, GB/s", "Not hidden",
            "Scattered read", "Scattered row, ns", "Rows, GB/s", "Wait, µs", "Loop, µs"]  # fmt: skip
    limits = [
        [m["shape"], m["format"], str(m["threads"]), f"{m['flops'] / 1e9:.0f}", f"{m['first_read'] / 1e9:.1f}",
         f"{m['next_read'] / 1e9:.1f}", f"{m['read_by_token'] / 1e9:.1f}", f"{m['not_hidden']:.2f}",
         f"{m['scattered_read']:.2f}", f"{m['scattered_row'] * 1e9:.0f}", f"{m['row_copy'] / 1e9:.1f}", f"{m['wait_seconds'] * 1e6:.2f}",
         f"{m['loop_seconds'] * 1e6:.2f}"]
        for m in results["machine"]
    ]  # fmt: skip
    table = folded("Limits of the machine by which the cost model predicts", table_html(Table(head, limits, 2))) if limits else ""
    rows = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts if value)
    words = (
        "<p>Strategies of a point take turns, and every result is compared with that of sorted first, bit for bit. Weights are "
        "cold: copies take turns, too. A strategy whose first two passes take more than four times the quickest one's runs no "
        "more. Assignments are given, so no router is in the times.</p>"
    )
    return section("setup", "How it was measured", f'{words}\n<dl class="facts">\n{rows}\n</dl>\n{table}')


def html(results, command=""):
    """The whole page."""
    names = ordered(c["strategy"] for c in results["cells"])
    figures = [times(results, names), stages(results), skew(results, names), *capacities(results), memory(results, names),
               model(results, names)]  # fmt: skip
    sections = [
        ("findings", "Findings", findings_section(results)),
        ("winners", "Winners", winners_section(results, names)),
        *((drawn.name, drawn.heading, figure(drawn)) for drawn in figures if drawn.panels or drawn.folded),
        ("latency", "Latency", latency_section(results)),
        ("cells", "All cells", cells_section(results)),
        ("failed", "Not measured", failed_section(results)),
        ("setup", "Setup", setup_section(results, command)),
    ]
    return document.page(HEADLINE, lead(results), sections)
