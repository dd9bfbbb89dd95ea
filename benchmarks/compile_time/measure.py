#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Seconds and peak memory that a compiler takes for a consumer's translation unit.

usage: measure.py --output FILE.json [--repetitions N] COMPILER FLAG...

Compiles each .cpp file beside this one. The numbers are medians, without any
compiler cache.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path


def compile_once(command, source):
    """(seconds, CPU seconds, MB) of the compiler and its children."""
    start = time.perf_counter()
    process = subprocess.Popen([*command, "-c", str(source), "-o", os.devnull], env={**os.environ, "CCACHE_DISABLE": "1"})
    # wait4 knows the largest of the process and the children it waited for: the compiler proper.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"measure.py: {source.name} does not compile")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(prog="measure.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMPILER FLAG...")
    options = parser.parse_args()
    units = []
    for source in sorted(Path(__file__).parent.glob("*.cpp")):
        runs = [compile_once(options.command, source) for _ in range(options.repetitions)]
        seconds, cpu, megabytes = (statistics.median(values) for values in zip(*runs))
        units.append({"name": source.stem, "seconds": seconds, "cpu_seconds": cpu, "megabytes": megabytes})
        print(f"{source.stem:14} {seconds:6.2f} s ({cpu:.2f} of CPU) {megabytes:7.0f} MB")
    options.output.write_text(json.dumps({"command": " ".join(options.command), "units": units}, indent=1))


if __name__ == "__main__":
    main()
