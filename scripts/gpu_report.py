#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes a page of the eight files that bundle/run (scripts/gpu) brings back from a machine with a GPU.

usage: gpu_report.py FOLDER PAGE.md
"""
import csv
import json
import re
import sys
from pathlib import Path

FILES = ("machine.txt", "tests.txt", "summary.txt", "sanitizer.txt", "probe.jsonl", "torch.jsonl", "benchmark.json", "ncu.csv")


def objects(path):
    """The JSON objects of a file with one per line; other lines, and a last one that was cut off, are left out."""
    found = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def number(value):
    return "" if not value else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def table(head, rows):
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * 2}{'---:|' * (len(head) - 2)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def verdicts(summary):
    """{"ok": [names], "FAILED": …, "skipped": …, "no time": …} of the lines of summary.txt."""
    found = {}
    for line in summary.splitlines():
        match = re.match(r"(ok|FAILED|skipped|no time) (.*)", line)
        if match:
            found.setdefault(match[1], []).append(match[2])
    return found


def speeds(probe, torch):
    """Rows of the table of times, in µs and TFLOP/s."""
    peers = {(row["shape"], row["tokens"]): row for row in torch if "shape" in row}
    for row in probe:
        if "shape" not in row:
            continue
        peer = peers.get((row["shape"], row["tokens"]), {})
        tera = row["flops"] / row["forward_us"] * 1e-6
        trained = 3 * row["flops"] / row["training_us"] * 1e-6 if row.get("training_us") else 0
        cells = [
            row["forward_us"], row["forward_graph_us"], tera, peer.get("grouped_us"), peer.get("looped_us"),
            row["training_us"], row["training_graph_us"], trained, peer.get("grouped_training_us"),
        ]  # fmt: skip
        yield [row["shape"], str(row["tokens"]), *map(number, cells)]


def memory(probe):
    for row in probe:
        if row.get("tape_bytes"):
            yield [row["shape"], str(row["tokens"]), f"{row['tape_bytes'] / 1e9:.3f}", f"{row['workspace_bytes'] / 1e9:.3f}"]


def beside_cublas(path):
    """Rows of benchmarks/cuda: times in µs of hmoe and both forms of cuBLAS, and hmoe's part of what the limits allow."""
    try:
        found = json.loads(path.read_text(errors="replace") or "{}").get("benchmarks", [])
    except ValueError:  # cut off
        return
    cells = {}
    for row in found:
        match = re.match(r"cuda/([^/]+)/([^/]+)/([^/]+)/tokens:(\d+)/(\w+)", row.get("name", ""))
        if match and not row.get("error_occurred") and row.get("run_type", "iteration") == "iteration":
            shape, values, subject, tokens, routing = match.groups()
            cells.setdefault((shape, values, int(tokens), routing), {})[subject] = row
    for (shape, values, tokens, routing), subjects in cells.items():
        times = [subjects.get(s, {}).get("real_time") for s in ("hmoe", "cublas_per_expert", "cublas_grouped", "training_step")]
        own = subjects.get("hmoe", {})
        yield [f"{shape}, {routing}", values, str(tokens), *map(number, times), number(own.get("TFLOP/s")),
               number(own.get("efficiency"))]  # fmt: skip


COUNTERS = (
    "Duration", "Compute (SM) Throughput", "L2 Cache Throughput", "DRAM Throughput", "Achieved Occupancy",
    "Registers Per Thread", "L1/TEX Hit Rate", "L2 Hit Rate",
)  # fmt: skip


def counters(path):
    """Rows of ncu's table: a kernel, and of COUNTERS what is there."""
    lines = path.read_text(errors="replace").splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    kernels = {}
    for row in csv.DictReader(lines[start:]):
        if not (row.get("ID") or "").isdigit():  # what ncu says at the end
            continue
        name = re.sub(r"[<(].*", "", row.get("Kernel Name") or "").split("::")[-1].split(" ")[-1]
        inner = re.search(r"(project_in|project_out|backward_hidden|backward_rows|weight_gradient)", row.get("Kernel Name") or "")
        values = kernels.setdefault(row["ID"], {"kernel": inner[1] if inner else name})
        if row.get("Metric Name") in COUNTERS:
            values.setdefault(row["Metric Name"], f"{row.get('Metric Value')} {row.get('Metric Unit') or ''}".strip())
    for values in kernels.values():
        yield [values["kernel"], "", *(values.get(name, "") for name in COUNTERS)]


def page(folder):
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        sys.exit(f"{folder} lacks {', '.join(missing)}: give the folder that bundle/run wrote")
    probe, torch = objects(folder / "probe.jsonl"), objects(folder / "torch.jsonl")
    device = next((row["device"] for row in probe if "device" in row), None)
    found = verdicts((folder / "summary.txt").read_text())
    if device is None:
        reasons = "; ".join(found.get("skipped", ["the probe did not run"]))
        sys.exit(f"nothing was measured, there is no page to make; skipped {reasons}")
    limits = {key: value for row in torch for key, value in row.items() if key in ("dense_tflops", "copy_tbs")}
    lines = [
        f"# Measured on {device}",
        "",
        "Made by `scripts/gpu report` from what `scripts/gpu` ran there. In bfloat16; medians of passes that begin with an L2",
        "cache full of something else. FLOPs are those of the activated experts; a training step counts three times a forward",
        "pass. *graph*: the same as a CUDA graph. *grouped* and *looped*: a layer in PyTorch by `torch._grouped_mm`, whose",
        "experts are padded to the widest where widths are unequal (the shapes `_equal` are the same without), and expert",
        "by expert.",
        "",
    ]
    if limits:
        lines += [
            f"PyTorch's dense product of 8192 × 8192 matrices reaches {number(limits.get('dense_tflops'))} TFLOP/s, a copy "
            f"{number(limits.get('copy_tbs'))} TB/s.",
            "",
        ]
    lines += table(
        ["shape", "tokens", "forward µs", "graph µs", "TFLOP/s", "grouped µs", "looped µs", "training µs", "graph µs", "TFLOP/s",
         "grouped training µs"],
        speeds(probe, torch),
    )  # fmt: skip
    lines += ["", "Memory of training, in GB:", "", *table(["shape", "tokens", "tape", "workspace"], memory(probe))]
    rows = list(beside_cublas(folder / "benchmark.json"))
    if rows:
        head = ["shape, routing", "values", "tokens", "hmoe µs", "cuBLAS each µs", "cuBLAS grouped µs", "training µs", "TFLOP/s",
                "part of the limits"]  # fmt: skip
        lines += [
            "",
            "Beside cuBLAS (`benchmarks/cuda`), which makes the host wait for the plan; the limits are a dense product of 8192 × 8192",
            "random values and a copy, measured in the same run:",
            "",
            *table(head, rows),
        ]
    rows = list(counters(folder / "ncu.csv"))
    if rows:
        lines += ["", "Counters (ncu, clocks as they are):", "", *table(["kernel", "", *COUNTERS], rows)]
    lines += ["", "## Tests", "", f"{len(found.get('ok', []))} passed."]
    for word, text in (("FAILED", "Failed"), ("no time", "Cut off"), ("skipped", "Skipped")):
        if word in found:
            lines.append(f"{text}: {'; '.join(found[word])}.")
    return "\n".join(lines) + "\n"


def main(arguments):
    if len(arguments) != 2:
        sys.exit(__doc__)
    text = page(Path(arguments[0]))
    Path(arguments[1]).write_text(text)
    print(f"{arguments[1]}: {text.count(chr(10))} lines")


if __name__ == "__main__":
    main(sys.argv[1:])
