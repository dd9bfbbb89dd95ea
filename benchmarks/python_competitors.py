#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Time the competitors that are Python packages on a problem that benchmarks/export_problem wrote.

Writes the same kind of JSON, and the same names, as the C++ programs. Each
result is compared with hmoe's before it is timed.
"""

import argparse
import importlib
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True

MODULES = ("pytorch_mixtral", "pytorch_grouped", "onnxruntime_moe")  # files of competitors/; a further one goes here
TRAINING = ("pytorch_mixtral",)
TOLERANCE = 1e-4


def medians(run, inputs, repetitions, min_time):
    """(median, standard deviation ÷ mean) of the seconds that a run takes; inputs take turns."""
    run(inputs[0])
    times, turn = [], 0
    for _ in range(repetitions):
        count, start = 0, time.perf_counter()
        while count == 0 or time.perf_counter() - start < min_time:
            run(inputs[turn % len(inputs)])
            count, turn = count + 1, turn + 1
        times.append((time.perf_counter() - start) / count)
    return statistics.median(times), statistics.pstdev(times) / statistics.mean(times)


def entry(name, seconds, spread):
    return {"name": name, "run_type": "aggregate", "aggregate_name": "median", "real_time": 1e3 * seconds,
            "time_unit": "ms", "spread": spread}  # fmt: skip


def skipped(name, reason):
    return {"name": name, "error_occurred": True, "error_message": str(reason).splitlines()[0]}


def inputs_of(problem, tokens):
    """Up to four different slices of that many tokens."""
    count = min(4, len(problem.x) // tokens)
    if count == 0:
        raise ValueError(f"the problem has {len(problem.x)} tokens, {tokens} are wanted")
    return [problem.x[i * tokens : (i + 1) * tokens].copy() for i in range(count)]


def check(run, problem, tokens):
    import numpy

    wanted = problem.y[:tokens]
    error = numpy.linalg.norm(run(problem.x[:tokens].copy()) - wanted) / numpy.linalg.norm(wanted)
    if not error <= TOLERANCE:
        raise ValueError(f"its result differs from hmoe's by {error:.2g}, allowed is {TOLERANCE:g}")


def measure(problem, options):
    found, versions = [], {}
    for module in MODULES:
        try:
            competitor = importlib.import_module(f"competitors.{module}")
        except ImportError as error:
            found.append(skipped(f"layer/{problem.shape}/f32/{module}", f"not installed: {error}"))
            continue
        versions[f"version.{competitor.NAME}"] = competitor.VERSION
        for threads in options.threads:
            forward = f"layer/{problem.shape}/f32/{competitor.NAME}"
            training = f"training/{problem.shape}/f32/{competitor.NAME}"
            place = f"tokens:%d/threads:{threads}"
            try:
                run = competitor.make(problem, threads)
                check(run, problem, options.tokens[0])
                for tokens in options.tokens:
                    name = f"{forward}/{place % tokens}/{problem.routing}"
                    found.append(entry(name, *medians(run, inputs_of(problem, tokens), options.repetitions, options.min_time)))
                if module in TRAINING and options.training:
                    phases = competitor.make_training(problem, threads)
                    for tokens in options.training:
                        for phase, train in phases.items():
                            name = f"{training}/{place % tokens}/{phase}"
                            found.append(entry(name, *medians(train, inputs_of(problem, tokens), options.repetitions, options.min_time)))
            except Exception as error:  # one that fails must not stop the others; the report says why
                found.append(skipped(f"{forward}/threads:{threads}", error))
    return {"context": versions, "benchmarks": found}


def main():
    parser = argparse.ArgumentParser(prog="python_competitors.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("problem", type=Path, metavar="PROBLEM")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--tokens", type=int, nargs="+", required=True)
    parser.add_argument("--training", type=int, nargs="*", default=[], metavar="TOKENS", help="training steps as well")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--min-time", type=float, default=0.1, help="seconds of a repetition")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(max(options.threads))
    sys.path.insert(0, str(Path(__file__).parent))
    from competitors.problem import read

    options.output.write_text(json.dumps(measure(read(options.problem), options), indent=1))


if __name__ == "__main__":
    main()
