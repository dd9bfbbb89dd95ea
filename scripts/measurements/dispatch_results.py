# SPDX-License-Identifier: MIT
"""The JSON lines of benchmarks/dispatch: whether a run goes on, what was measured, and the same as CSV.

Lines are told apart by their first member: "name" a cell, "described" a shape, "capacity" what a capacity does to a load,
"run" the start of the program, "refused" a strategy that breaks the laws, "end" the end; "selection" comes first and says
what shall be measured. "machine" has the limits of the machine by which the cost model predicts, and "batch" the rows of
the experts at a point: with them another model can be tried on the times of a run. The last line of a cell counts. A line
that is no JSON is what an interrupted run left.
"""

import csv
import io
import json
from pathlib import Path

COLUMNS = ("name", "shape", "format", "strategy", "tokens", "load", "phase", "threads", "seconds", "q25", "q75", "runs",
           "share_of_even_rounds", "share_of_odd_rounds", "held_out", "p99", "predicted", "picked", "flops", "bytes", "imbalance", "peak", "dram", "efficiency", "rows",
           "padding", "dropped", "workspace", "drops", "error")  # fmt: skip
PICKS = ("automatic", "tuned")  # dispatch::automatic by its cost model, and by a table that dispatch::tune would make
POINT = ("shape", "format", "tokens", "load", "phase", "threads")


def lines(path):
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry:
            yield entry


def prepare(path, selection):
    """Makes the file ready for a run; how many cells it goes on from, 0 for a new one.

    A run goes on where the last one had the same selection and did not come to its end.
    """
    path = Path(path)
    if path.exists():
        found = list(lines(path))
        ended = any("end" in entry for entry in found)
        if found and found[0].get("selection") == selection and not ended:
            return len({entry["name"] for entry in found if "name" in entry})
    path.write_text(json.dumps({"selection": selection}) + "\n", encoding="utf-8")
    return 0


def read(path):
    results = {"format": "hmoe-dispatch-1", "selection": "", "complete": False, "runs": [], "shapes": {}, "capacity": [],
               "refused": [], "machine": [], "batches": [], "cells": []}  # fmt: skip
    cells, capacity, refused, machine, batches = {}, {}, {}, {}, {}
    for entry in lines(path):
        if "name" in entry:
            cells[entry["name"]] = entry
        elif "described" in entry:
            results["shapes"][entry["described"]] = entry
        elif "capacity" in entry:
            capacity[tuple(entry[key] for key in ("capacity", "shape", "load", "factor"))] = entry
        elif "machine" in entry:
            machine[entry["machine"]] = entry
        elif "batch" in entry:
            batches[entry["batch"]] = entry
        elif "run" in entry:
            results["runs"].append(entry)
        elif "refused" in entry:
            refused[entry["refused"]] = entry
        elif "selection" in entry:
            results["selection"] = entry["selection"]
        elif "end" in entry:
            results["complete"] = True
    results |= {"cells": list(cells.values()), "capacity": list(capacity.values()), "refused": list(refused.values()),
                "machine": list(machine.values()), "batches": list(batches.values())}  # fmt: skip
    return results


def measured(results):
    return [cell for cell in results["cells"] if "seconds" in cell]


def csv_text(results, columns=COLUMNS):
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(results["cells"])
    return out.getvalue()


def points(cells):
    """{point: {strategy: cell}}, in the order of the file."""
    found = {}
    for cell in cells:
        found.setdefault(tuple(cell[key] for key in POINT), {})[cell["strategy"]] = cell
    return found


def uncertainty(cell):
    """Relative standard error of a median, from the quartiles, as of a normal distribution."""
    return 1.2533 * (cell["q75"] - cell["q25"]) / 1.349 / cell["runs"] ** 0.5 / cell["seconds"]


def ranking(strategies):
    """The cells of a point that may win, the quickest first: those of one strategy that drops nothing."""
    return sorted(
        (cell for cell in strategies.values() if not cell["drops"] and cell["strategy"] not in PICKS),
        key=lambda cell: cell["seconds"],
    )


def margin(strategies):
    """(winner, runner-up's time ÷ winner's − 1, whether that is beyond twice the noise); None without two strategies."""
    ranked = ranking(strategies)
    if len(ranked) < 2:
        return None
    first, second = ranked[:2]
    ahead = second["seconds"] / first["seconds"] - 1
    return first, ahead, ahead > 2 * (uncertainty(first) ** 2 + uncertainty(second) ** 2) ** 0.5
