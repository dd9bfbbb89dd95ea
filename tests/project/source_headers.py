#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks that every source file names its licence at the top, that every header has #pragma once exactly once, and that
templates of the library that take a context say so.

usage: source_headers.py PROJECT_DIRECTORY
"""

import os
import re
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


def unconstrained_contexts(text):
    """Lines with a template parameter `class Context`, other than of a concept or in a requires clause's template."""
    blank = re.sub(r'"(?:\\.|[^"\\\n])*"|//[^\n]*', "", text)
    for found in re.finditer(r"template <[^;{}]*?\bclass Context\b[^;{}]*[;{]", blank):
        if not re.search(r"\bconcept\b|\brequires\b", found.group()):
            yield blank.count("\n", 0, found.start()) + 1


def problems_of(path):
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if "include" in path.parts and path.suffix in HEADERS:
        for line in unconstrained_contexts(text):
            yield f"line {line}: write `execution_context Context` instead of `class Context`"
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
