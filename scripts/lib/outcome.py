#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What became of a build and of its tests, for scripts/test.

usage: outcome.py unbuilt BUILD_DIRECTORY BUILD_LOG
           names the programs that Ninja could not build, one a line, and deletes what an earlier build left of them
       outcome.py tests REPORT.xml
           says on stderr why tests were skipped, and prints how many tests passed, failed and were skipped;
           a test whose program was not built is none of these
"""

import re
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

NO_PROGRAM = "Unable to find executable"


def failed_outputs(log):
    """The files that Ninja says it failed to make."""
    return {name for line in re.findall(r"^FAILED: (.+)$", log, re.MULTILINE) for name in line.split()}


def ninja(build_directory, *arguments):
    command = ["ninja", "-C", str(build_directory), "-t", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


def programs_of(build_directory):
    """The programs of a build, each with all that it is made of, itself included."""
    rules = re.compile(r"(.+): CXX_EXECUTABLE_LINKER__")
    programs = [found[1] for line in ninja(build_directory, "targets", "all") if (found := rules.match(line))]
    return {name: {name, *ninja(build_directory, "inputs", name)} for name in programs}


def unbuilt(failed, programs):
    """The programs that a failed file belongs to, and the failed files that belong to none."""
    stopped = sorted(name for name, parts in programs.items() if failed & parts)
    return stopped + sorted(failed.difference(*programs.values()))


def count(report):
    """(passed, failed, reasons): reasons has a line for each skipped test."""
    passed, failed, reasons = 0, 0, []
    for test in xml.etree.ElementTree.parse(report).iter("testcase"):
        skipped = test.find("skipped")
        if test.get("status") == "run":
            passed += 1
        elif test.get("status") == "fail":
            failed += 1
        elif skipped is None or skipped.get("message") != NO_PROGRAM:
            output = (test.findtext("system-out") or "").strip().splitlines()
            reason = output[-1] if output else "no reason is given"
            reasons.append(f"{test.get('name')}: {reason}")
    return passed, failed, reasons


def main():
    if sys.argv[1:2] == ["unbuilt"] and len(sys.argv) == 4:
        build_directory = Path(sys.argv[2])
        failed = failed_outputs(Path(sys.argv[3]).read_text(encoding="utf-8", errors="replace"))
        for name in unbuilt(failed, programs_of(build_directory)) if failed else []:
            (build_directory / name).unlink(missing_ok=True)
            print(name)
    elif sys.argv[1:2] == ["tests"] and len(sys.argv) == 3:
        passed, failed, reasons = count(sys.argv[2])
        for line in reasons:
            print(f"skipped: {line}", file=sys.stderr)
        print(passed, failed, len(reasons))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
