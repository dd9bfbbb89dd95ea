#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks that every source file names its licence at the top, and that every header has #pragma once exactly once.

usage: source_headers.py PROJECT_DIRECTORY
"""

import os
import sys
from pathlib import Path

SPDX = "SPDX-License-Identifier: MIT"
HEADERS = {".hpp", ".cuh", ".h"}
INCLUDED_SEVERAL_TIMES = {"macros_off.hpp", "macros_on.hpp"}
SOURCES = {*HEADERS, ".cpp", ".cu", ".py", ".sh", ".cmake"}


def source_files(project):
    for directory, folders, names in os.walk(project):
        folders[:] = [name for name in folders if name not in {".git", "build", "__pycache__"}]
        for path in (Path(directory, name) for name in names):
            if path.suffix in SOURCES or path.name == "CMakeLists.txt" or is_script(path):
                yield path


def is_script(path):
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def problems_of(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    if not any(SPDX in line for line in lines[:2]):
        yield f'the first two lines do not hold "{SPDX}"'
    guards = sum(line.strip() == "#pragma once" for line in lines)
    if path.suffix in HEADERS and guards != (path.name not in INCLUDED_SEVERAL_TIMES):
        yield f"#pragma once stands there {guards} times"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    problems = [f"{path}: {problem}" for path in source_files(sys.argv[1]) for problem in problems_of(path)]
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
