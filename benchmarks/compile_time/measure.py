#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Seconds and peak memory that a compiler takes for a consumer's translation unit.

usage: measure.py --output FILE.json [--repetitions N] [--build DIRECTORY] COMPILER FLAG...

Compiles each .cpp file beside this one. The numbers are medians, without any
compiler cache. With --build, also how long the translation units of each
program of that build of Ninja's took when they were last compiled: wall time,
so build it with nothing else running, and without a compiler cache.
"""

import argparse
import json
import os
import re
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


def programs_of(ninja_log):
    """Of each target with objects in Ninja's log: how many there are, and the seconds that all and the longest took."""
    objects = {}
    for line in ninja_log.splitlines():
        fields = line.split("\t")
        if len(fields) == 5 and (found := re.search(r"CMakeFiles/([^/]+)\.dir/", fields[3])):
            # Later lines replace earlier ones.
            objects[fields[3]] = (found[1], (int(fields[1]) - int(fields[0])) / 1000)
    seconds = {}
    for name, took in objects.values():
        seconds.setdefault(name, []).append(took)
    programs = [{"name": name, "units": len(all_), "seconds": sum(all_), "longest": max(all_)}
                for name, all_ in seconds.items()]  # fmt: skip
    return sorted(programs, key=lambda program: -program["seconds"])


def main():
    parser = argparse.ArgumentParser(prog="measure.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--build", type=Path, metavar="DIRECTORY")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMPILER FLAG...")
    options = parser.parse_args()
    units = []
    for source in sorted(Path(__file__).parent.glob("*.cpp")):
        runs = [compile_once(options.command, source) for _ in range(options.repetitions)]
        seconds, cpu, megabytes = (statistics.median(values) for values in zip(*runs))
        units.append({"name": source.stem, "seconds": seconds, "cpu_seconds": cpu, "megabytes": megabytes})
        print(f"{source.stem:14} {seconds:6.2f} s ({cpu:.2f} of CPU) {megabytes:7.0f} MB")
    results = {"command": " ".join(options.command), "units": units}
    if options.build and (log := options.build / ".ninja_log").is_file():
        results["programs"] = programs_of(log.read_text())
        for program in results["programs"]:
            print(f"{program['name']:32} {program['units']:3} units {program['seconds']:7.1f} s, "
                  f"the longest {program['longest']:.1f} s")  # fmt: skip
    options.output.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
