# SPDX-License-Identifier: MIT
"""Gathers the JSON files of the benchmark programs into one results file.

    {"format": "hmoe-benchmarks-1", "command", "machine": {…}, "versions": {subject: version},
     "layer":    [{"shape", "dtype", "subject", "tokens", "threads", "routing", "milliseconds", "spread",
                   "gflops", "gbs", "peak_fraction", "dram_fraction", "efficiency", "router_share", …}],
     "training": [{"shape", "dtype", "subject", "tokens", "threads", "phase", "milliseconds", "spread", …}],
     "skipped":  [{"name", "reason"}],
     "compile_time": {"command", "units": [{"name", "seconds", "cpu_seconds", "megabytes"}],
                      "programs": [{"name", "units", "seconds", "longest"}]}}

Numbers are medians over repetitions; spread is standard deviation ÷ mean.
"""

import json

FORMAT = "hmoe-benchmarks-1"
OURS = "simd"  # the subject that the others are compared with, in each data type
PAIRS = (("hmoe_0.4b", "hmoe_0.4b_equal"), ("hmoe_3b", "hmoe_3b_equal"))  # unequal widths beside their equal twin

COUNTERS = {
    "GFLOP/s": "gflops",
    "GB/s": "gbs",
    **{name: name for name in ("peak_fraction", "dram_fraction", "efficiency", "router_share", "peak_gflops", "dram_gbs")},
}


class ResultsError(Exception):
    """The files are not what this report can show; the text says why."""


def split_name(name):
    """(kind, fields) of layer/SHAPE/DTYPE/SUBJECT/tokens:T/threads:N/ROUTING or training/…/PHASE; None for others."""
    parts = name.split("/")
    if len(parts) != 7 or parts[0] not in ("layer", "training"):
        return None
    try:
        tokens, threads = (int(part.removeprefix(word)) for part, word in zip(parts[4:6], ("tokens:", "threads:")))
    except ValueError:
        return None
    last = "routing" if parts[0] == "layer" else "phase"
    return parts[0], {
        "shape": parts[1], "dtype": parts[2], "subject": parts[3], "tokens": tokens, "threads": threads, last: parts[6],
    }  # fmt: skip


def name_of(entry):
    return entry.get("run_name") or entry["name"]


def add_program(gathered, content):
    """Adds what one program wrote in Google Benchmark's format."""
    context = content.get("context", {})
    for key, value in context.items():
        if key.startswith("version."):
            gathered["versions"][key.removeprefix("version.")] = value
    if "compiler" in context:
        gathered["machine"] |= {"compiler": context["compiler"]}
    spreads = {
        name_of(entry): entry["real_time"]
        for entry in content["benchmarks"]
        if entry.get("aggregate_name") == "cv"
    }
    for entry in content["benchmarks"]:
        name = name_of(entry)
        if entry.get("error_occurred"):
            reason = {"name": name, "reason": entry.get("error_message", "")}
            if reason not in gathered["skipped"]:
                gathered["skipped"].append(reason)
            continue
        found = split_name(name)
        # Without repetitions there are no aggregates, and the run itself stands for its median.
        if not found or entry.get("aggregate_name", "median") != "median":
            continue
        kind, fields = found
        scale = {"ns": 1e-6, "us": 1e-3, "ms": 1, "s": 1e3}[entry["time_unit"]]
        fields["milliseconds"] = entry["real_time"] * scale
        fields["spread"] = entry.get("spread", spreads.get(name))
        fields |= {ours: entry[theirs] for theirs, ours in COUNTERS.items() if theirs in entry}
        gathered[kind].append(fields)


def gather(files, command, machine):
    """Everything from the files of the programs, of Python's competitors, and of the compile times."""
    gathered = {"format": FORMAT, "command": command, "machine": dict(machine), "versions": {},
                "layer": [], "training": [], "skipped": [], "compile_time": None}  # fmt: skip
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if "units" in content:
                gathered["compile_time"] = content
            else:
                add_program(gathered, content)
        except (ValueError, KeyError) as error:
            raise ResultsError(f"{file} is not what a benchmark program writes: {error!r}") from error
    for kind in ("layer", "training"):  # the programs run in random order
        gathered[kind].sort(key=place)
    return gathered


def place(entry):
    """Where an entry stands: hmoe itself first among the subjects."""
    last = entry.get("routing") or ("forward", "backward", "step").index(entry["phase"])
    subject = (entry["subject"] != OURS, entry["subject"])
    return entry["shape"], entry["dtype"], entry["threads"], str(last), entry["tokens"], subject


def pick(entries, **wanted):
    return [entry for entry in entries if all(entry.get(key) == value for key, value in wanted.items())]


def ordered(values):
    """Each once, in the order of the file."""
    return list(dict.fromkeys(values))


def curve(entries, value="milliseconds"):
    """{tokens: value}"""
    return {entry["tokens"]: entry[value] for entry in sorted(entries, key=lambda e: e["tokens"]) if value in entry}


def joint_spreads(above, below):
    """{tokens: relative spread of the quotient} of two lists of entries, as of independent values."""
    numerator, denominator = curve(above, "spread"), curve(below, "spread")
    return {
        tokens: ((numerator[tokens] or 0) ** 2 + (denominator[tokens] or 0) ** 2) ** 0.5
        for tokens in numerator
        if tokens in denominator
    }


# How far a limit of the machine may move within a run before its figures mean nothing.
STEADY = {"peak_gflops": ("peak", "GFLOP/s", 1.25), "dram_gbs": ("memory", "GB/s", 1.5)}


def unsteady_limits(entries):
    """[words] for each limit that moved too far while it was measured; peaks differ between data types."""
    found = []
    for counter, (name, unit, most) in STEADY.items():
        groups = {}
        for entry in entries:
            if entry.get(counter):
                kind = entry["dtype"] if counter == "peak_gflops" else ""
                groups.setdefault((kind, entry["threads"]), []).append(entry[counter])
        for (kind, threads), values in sorted(groups.items()):
            if max(values) > most * min(values):
                whose = f" of {kind}" if kind else ""
                found.append(
                    f"the {name}{whose} with {threads} thread{'s' if threads > 1 else ''} was measured as "
                    f"{min(values):.3g} to {max(values):.3g} {unit}"
                )
    return found


def doubtful(entries):
    """[(name, why)] of single measurements that cannot be right or are too noisy to quote."""
    found = []
    for entry in entries:
        name = "/".join(
            str(entry[key]) for key in ("shape", "dtype", "subject", "tokens", "threads") if key in entry
        ) + f"/{entry.get('routing') or entry.get('phase')}"
        if entry.get("router_share", 0) > 1:
            found.append((name, f"router and plan alone took {entry['router_share']:.2f} times as long as the whole"))
        if (entry.get("spread") or 0) > 0.1:
            found.append((name, f"its repetitions spread by {100 * entry['spread']:.0f} %"))
    return found


def ratios(above, below):
    """{tokens: above ÷ below} where both are known."""
    return {tokens: above[tokens] / below[tokens] for tokens in above if below.get(tokens)}
