# SPDX-License-Identifier: MIT
"""Puts the plots, the tables and the words into one HTML file. Everything from the results goes through `escape`."""

from html import escape

from report import document
from report.document import figure, folded, section
from report.tables import Table
from report.tables import html as table_html

from .figures import draw_all
from .results import OURS, curve, doubtful, pick, ratios, unsteady_limits

HEADLINE = "hmoe's layers beside the limits of the machine and beside others"


def share(value):
    return "–" if value is None else f"{value:.2f}"


def time_text(milliseconds):
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.3g} s"


def lead(results):
    ours = pick(results["layer"], subject=OURS, routing="uniform", threads=1)
    known = [cell["efficiency"] for cell in ours if "efficiency" in cell]
    if not known:
        return "This run measured no layer of hmoe itself."
    if unsteady := unsteady_limits(results["layer"]):
        return (
            "This run is not reliable: the machine's limits moved while it measured: " + "; ".join(unsteady) + ". "
            "Efficiencies and ratios of this page mean nothing: repeat it while nothing else runs."
        )
    words = f"With one thread and even routing, hmoe reaches {min(known):.2f} to {max(known):.2f} of what this machine's limits allow"
    slower = [
        (ratio, cell["shape"], subject["subject"], tokens)
        for cell in ours
        for subject in pick(results["layer"], shape=cell["shape"], dtype=cell["dtype"], routing="uniform", threads=1)
        if subject["subject"] != OURS
        for tokens, ratio in ratios(curve([subject]), curve([cell])).items()
    ]
    if not slower:
        return words + "."
    ratio, shape, subject, tokens = min(slower)
    return (
        f"{words}. Its hardest competitor is {subject} on {shape} with {tokens} token{'s' if tokens > 1 else ''}, "
        f"which takes {ratio:.2f} times hmoe's time."
    )


def layer_section(results):
    if not results["layer"]:
        return ""
    head = ["Layer", "Data type", "Who", "Tokens", "Threads", "Routing", "Time", "Spread", "GFLOP/s", "GB/s",
            "Efficiency", "Router"]  # fmt: skip
    rows = [
        [
            cell["shape"], cell["dtype"], cell["subject"], str(cell["tokens"]), str(cell["threads"]), cell["routing"],
            time_text(cell["milliseconds"]), share(cell.get("spread")),
            *(f"{cell[name]:.3g}" if name in cell else "–" for name in ("gflops", "gbs")),
            share(cell.get("efficiency")), share(cell.get("router_share") or None),
        ]
        for cell in results["layer"]
    ]  # fmt: skip
    return section("layers", "All layers", folded(f"{len(rows)} measurements", table_html(Table(head, rows, 3))))


def training_section(results):
    if not results["training"]:
        return ""
    rows = [
        [cell["shape"], cell["subject"], cell["phase"], str(cell["tokens"]), str(cell["threads"]),
         time_text(cell["milliseconds"]), share(cell.get("spread")), share(cell.get("peak_fraction"))]
        for cell in results["training"]
    ]  # fmt: skip
    table = Table(["Layer", "Who", "Phase", "Tokens", "Threads", "Time", "Spread", "Share of peak"], rows, 3)
    return section("steps", "All training steps", folded(f"{len(rows)} measurements", table_html(table)))


def compile_section(results):
    times = results.get("compile_time")
    if not times:
        return ""
    rows = [
        [unit["name"], f"{unit['seconds']:.1f} s", f"{unit['cpu_seconds']:.1f} s", f"{unit['megabytes']:.0f} MB"]
        for unit in times["units"]
    ]
    table = table_html(Table(["Translation unit", "Time", "of the CPU", "Peak memory"], rows))
    text = f"{table}\n<p><code>{escape(times['command'])}</code></p>"
    programs = [
        [entry["name"], str(entry["units"]), f"{entry['seconds']:.1f} s", f"{entry['longest']:.1f} s"]
        for entry in times.get("programs", [])
    ]
    if programs:
        head = ["Program of this project", "Translation units", "Time when last compiled", "Longest"]
        text += folded(f"{len(programs)} programs", table_html(Table(head, programs)))
    return section("compile", "Compile times", text)


def doubtful_section(results):
    rows = [list(entry) for entry in doubtful(results["layer"] + results["training"])]
    if not rows:
        return ""
    return section("doubtful", "Not to be quoted", table_html(Table(["What", "Why"], rows, 2)))


def skipped_section(results):
    if not results["skipped"]:
        return ""
    rows = [[entry["name"], entry["reason"]] for entry in results["skipped"]]
    return section("skipped", "Not measured", table_html(Table(["What", "Why"], rows, 2)))


def setup_section(results):
    def between(name, unit):
        values = [cell[name] for cell in results["layer"] if name in cell and cell["threads"] == 1]
        return f"{min(values):.0f} to {max(values):.0f} {unit}" if values else ""

    machine = results["machine"]
    facts = [
        ("Command", results["command"]),
        *((name.capitalize(), value) for name, value in machine.items()),
        ("Peak, 1 thread", between("peak_gflops", "GFLOP/s over this run")),
        ("Memory, 1 thread", between("dram_gbs", "GB/s over this run")),
        *sorted(results["versions"].items()),
    ]
    rows = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts if value)
    words = (
        "<p>Times are medians over repetitions, whose order is random. Weights are cold: copies of the layer take "
        "turns, so that none is in a cache. Inputs differ from one pass to the next.</p>"
    )
    return section("setup", "How it was measured", f'{words}\n<dl class="facts">\n{rows}\n</dl>')


def html(results):
    """The whole page."""
    sections = [
        *((drawn.name, drawn.heading, figure(drawn)) for drawn in draw_all(results)),
        ("layers", "Layers", layer_section(results)),
        ("steps", "Training steps", training_section(results)),
        ("compile", "Compile times", compile_section(results)),
        ("doubtful", "Doubtful", doubtful_section(results)),
        ("skipped", "Not measured", skipped_section(results)),
        ("setup", "Setup", setup_section(results)),
    ]
    return document.page(HEADLINE, lead(results), sections)
