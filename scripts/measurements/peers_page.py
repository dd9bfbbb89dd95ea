# SPDX-License-Identifier: MIT
"""The page on hmoe and its peers. Everything from the results goes through `escape`."""

from html import escape

from report import document
from report.document import figure, folded, section
from report.tables import Table
from report.tables import html as table_html

from .dispatch_charts import Figure, lines
from .dispatch_findings import unreliable
from .dispatch_page import cells_facts, milliseconds, strategy_curves, titled, winners_section
from .dispatch_results import measured, points
from .peers_findings import COARSER, NEAR, OURS, comparable, error_ratio, findings, lead, of_like_error, ours_of, peers_of, point_of, told
from .results import ordered, pick

HEADLINE = "hmoe beside its peers"
STYLE = """<style>
.ratios td, .ratios th { white-space: nowrap; }
.ratios .lost { color: #a40000; font-weight: 700; }
.ratios .near { font-weight: 600; }
.ratios .coarse { color: var(--quiet); font-style: italic; }
</style>"""


def top(results):
    if reason := unreliable(results):
        return f"This run is too noisy to be quoted: {reason}. {lead(results)}"
    return lead(results)


def findings_section(results):
    texts = findings(results)
    if not results["complete"] and measured(results):
        texts.append("The run did not come to its end: the same command goes on with it.")
    return section("findings", "What it shows", "\n".join(f"<p>{escape(words)}</p>" for words in texts))


def ratio_cell(cell, own):
    if cell is None or own is None or "ratio" not in cell:
        return "<td></td>"
    kind = "coarse" if not comparable(cell, own) else "" if cell["ratio"] > 1 + NEAR and told(cell) else "near"
    if kind == "near" and cell["ratio"] < 1 - NEAR and told(cell):
        kind = "lost"
    return f'<td class="n {kind}">{cell["ratio"]:.2f}</td>'


def ratios_section(results):
    """A table for each layer and number of threads: rows are formats, loads and peers, columns tokens."""
    cells, ours = peers_of(results), ours_of(results)
    bodies = []
    for shape, threads in ordered((c["shape"], c["threads"]) for c in cells):
        own = pick(cells, shape=shape, threads=threads)
        tokens = sorted({c["tokens"] for c in own})
        rows = []
        for form, load, subject in ordered((c["format"], c["load"], c["strategy"]) for c in own):
            found = {c["tokens"]: c for c in pick(own, format=form, load=load, strategy=subject)}
            first = next(iter(found.values()))
            error = error_ratio(first, ours[point_of(first)])
            words = f"{form}, {subject}" + (f", {load}" if load != "uniform" else "")
            marks = "".join(ratio_cell(c, ours.get(point_of(c)) if c else None) for c in map(found.get, tokens))
            error_words = "as exact" if form == "f32" else f"{error:.2f}"
            rows.append(f'<tr><th>{escape(words)}</th>{marks}<td class="n">{error_words}</td>'
                        f'<td class="n">{first["bytes_per_weight"]:.2f}</td></tr>')  # fmt: skip
        head = "".join(f'<th class="n">{count}</th>' for count in tokens)
        bodies.append(
            f"<h3>{escape(shape)}, {threads} thread{'s' if threads > 1 else ''}</h3>\n"
            f'<div class="scroll" tabindex="0"><table class="ratios"><thead><tr><th>tokens</th>{head}<th class="n">error ÷ '
            f'hmoe’s</th><th class="n">bytes per weight</th></tr></thead>\n<tbody>{"".join(rows)}</tbody></table></div>'
        )
    words = (
        f"Time of a peer ÷ that of hmoe in the same format, the median over rounds. Red: the peer is faster by more than "
        f"{100 * NEAR:.0f} % and the noise; bold: as fast as hmoe to within that; slanted: its error is more than {COARSER} times "
        f"hmoe's, so it does not count. Errors are ‖y − y₀‖ ÷ ‖y₀‖, y₀ what hmoe's layer makes of the same input in float."
    )
    return section("ratios", "Time ÷ hmoe’s", f"{STYLE}<p>{escape(words)}</p>\n" + "\n".join(bodies)) if bodies else ""


def exactness_section(results):
    rows, seen = [], set()
    for cell in measured(results):
        key = cell["shape"], cell["format"], cell["strategy"]
        if key not in seen:
            seen.add(key)
            rows.append([*key, f"{cell['difference']:.2g}", f"{cell['bytes_per_weight']:.3f}", str(cell["copies"]), cell["version"]])
    head = ["Layer", "Format", "Who", "Error", "Bytes per weight", "Copies", "Version"]
    first = [row for row in rows if rows and row[0] == rows[0][0]]
    body = "<p>A scale for each block or row counts into the bytes. Unequal layers are padded where a peer knows one width.</p>"
    return section("exactness", "Errors and bytes", body + table_html(Table(head, first, 3))
                   + folded(f"All {len(rows)}", table_html(Table(head, rows, 3)))) if rows else ""  # fmt: skip


def curves(results, names, name, heading, caption, label, value, logarithmic):
    drawn = Figure(name, heading, caption)
    cells = pick(measured(results), load="uniform")
    for key in ordered((c["shape"], c["format"], c["phase"], c["threads"]) for c in cells):
        own = pick(cells, shape=key[0], format=key[1], phase=key[2], threads=key[3])
        if len({c["tokens"] for c in own}) > 1:
            panel = lines(titled(*key), strategy_curves(own, value), "tokens", label, logarithmic, names=names)
            (drawn.panels if len(drawn.panels) < 6 else drawn.folded).append(panel)
    return drawn


def figures(results, names):
    return (
        curves(results, names, "efficiency", "Efficiency",
               "Time that the limits of the machine allow ÷ time: the larger of FLOPs ÷ peak of the format's instructions and bytes "
               "of the used weights, as a subject stores them, ÷ memory bandwidth. Both limits are measured beside each point. "
               "Padding is not work.", "efficiency", lambda c: c["efficiency"], False),
        curves(results, names, "times", "Time against tokens", "Milliseconds of a pass, tokens spread evenly.", "ms",
               lambda c: 1e3 * c["seconds"], True),
    )  # fmt: skip


def cells_section(results):
    cells = measured(results)
    head = ["Layer", "Format", "Load", "Who", "Tokens", "Threads", "ms", "Quartiles", "Rounds", "÷ hmoe’s", "Error", "Efficiency"]
    rows = [
        [c["shape"], c["format"], c["load"], c["strategy"], str(c["tokens"]), str(c["threads"]), milliseconds(c["seconds"]),
         f"{milliseconds(c['q25'])} – {milliseconds(c['q75'])}", str(c["runs"]), f"{c['ratio']:.3f}", f"{c['difference']:.2g}",
         f"{c['efficiency']:.2f}"]
        for c in cells
    ]  # fmt: skip
    return section("cells", "All cells", folded(f"{len(rows)} measurements", table_html(Table(head, rows, 4)))) if rows else ""


def failed_section(results):
    """A line for each reason; most hold for all sizes."""
    rows = [[c["strategy"], c["shape"], c["format"], c["error"]] for c in results["cells"] if c.get("error")]
    rows += [["all", e["refused"], "", e["reason"]] for e in results["refused"]]
    table = Table(["Who", "Layer", "Format", "Why"], list(map(list, ordered(map(tuple, rows)))), 4)
    return section("failed", "Not measured", table_html(table)) if rows else ""


def setup_section(results, command):
    cells = measured(results)
    loads = [run["load_average"] for run in results["runs"] if "load_average" in run]
    facts = [("Command", command), ("Points", str(len(points(cells)))), ("Cells", str(len(cells))), *cells_facts(results)]
    if loads:
        facts.append(("Load average at the start", ", ".join(f"{load:.1f}" for load in loads)))
    rows = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts if value)
    words = (
        "<p>Every subject has a process of its own and they take turns; who has none is stopped. All get expert ids and weights "
        "ready-made, so no router is in the times; hmoe’s plan and every peer’s grouping are. Tokens are in the type that the "
        "peer computes with before the clock starts. Weights are cold: copies of them take turns, and so do inputs. With one "
        "thread, seconds of the CPU count where they are fewer than those that passed.</p>"
    )
    return section("setup", "How it was measured", f'{words}\n<dl class="facts">\n{rows}\n</dl>')


def html(results, command=""):
    """The whole page."""
    names = [OURS, *ordered(c["strategy"] for c in results["cells"] if c["strategy"] != OURS)]
    words = (
        f"The quickest of those whose error is at most {COARSER} times hmoe's, and how much longer the next one takes. A frame "
        "instead of a filled field: less than twice the noise, so either may be the quicker one."
    )
    sections = [
        ("findings", "Findings", findings_section(results)),
        ("ratios", "Time ÷ hmoe’s", ratios_section(results)),
        ("winners", "Winners", winners_section(of_like_error(results), names, words, lambda *_: True)),
        ("exactness", "Errors and bytes", exactness_section(results)),
        *((drawn.name, drawn.heading, figure(drawn)) for drawn in figures(results, names) if drawn.panels),
        ("cells", "All cells", cells_section(results)),
        ("failed", "Not measured", failed_section(results)),
        ("setup", "Setup", setup_section(results, command)),
    ]
    return document.page(HEADLINE, top(results), sections)
