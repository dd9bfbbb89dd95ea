#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks that every public header answers a compiler or flags that it cannot work with by one sentence, and a library
that is not there.

usage: refused_compilers.py INCLUDE_DIRECTORY COMPILER [OTHER_COMPILER...]

COMPILER is one that works; it is run with -std=c++17 and with flags that hide NaN. OTHER_COMPILERs are run where they
are older than the library allows.
"""

import re
import subprocess
import sys
from pathlib import Path

NEEDS_CPP20 = "hmoe needs C++20: compile with -std=c++20"
NEEDS_NAN = "hmoe checks for NaN, which -ffast-math, -Ofast and -ffinite-math-only rule out"
NEEDS_CLANG = "hmoe needs clang 16 or later"
LIBRARIES = {
    "hmoe/backends/cuda.hpp": "the CUDA toolkit",
    "hmoe/backends/simd.hpp": "xsimd",
    "hmoe/execution/tbb.hpp": "oneTBB",
    "hmoe/interop/eigen.hpp": "Eigen",
    "hmoe/io/json.hpp": "nlohmann-json",
    "hmoe/parallel/mpi.hpp": "MPI",
    "hmoe/parallel/nccl.hpp": "NCCL",
}


def first_error(command):
    """The first line with an error; the empty string where there is none."""
    output = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    return next((line for line in output.splitlines() if re.search(r"\b(fatal )?error: ", line)), "")


def problems_of(include_directory, compiler, flags, sentence, headers):
    for header in headers:
        # Preprocessing is enough for these sentences, as long as nothing comes before them.
        first = first_error([compiler, "-x", "c++", "-E", "-Wfatal-errors", "-o", "/dev/null", *flags, f"-I{include_directory}",
                             "-include", str(header), "/dev/null"])  # fmt: skip
        if sentence not in first:
            yield f"{header} with {compiler} {' '.join(flags)} answers: {first or 'nothing'}"


def first_is_compiler_header(include_directory, header):
    """Whether nothing is included before core/compiler.hpp: other text could fail first."""
    seen = set()
    while header not in seen:
        seen.add(header)
        if header == "hmoe/core/compiler.hpp":
            return True
        text = (include_directory / header).read_text(encoding="utf-8")
        directive = re.search(r"^[ \t]*#[ \t]*(?!pragma once)(.*)$", text, re.MULTILINE)
        include = directive and re.fullmatch(r"include[ \t]*[<\"]([^>\"]+)[>\"]", directive.group(1).strip())
        if not include or not include.group(1).startswith("hmoe/"):
            return False
        header = include.group(1)
    return False


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    include_directory, compiler = Path(sys.argv[1]), sys.argv[2]
    headers = sorted(p.relative_to(include_directory).as_posix()
                     for p in include_directory.rglob("*") if p.suffix in {".hpp", ".cuh"})  # fmt: skip
    problems = [f"{header} has a directive before it includes hmoe/core/compiler.hpp"
                for header in headers if not first_is_compiler_header(include_directory, header)]  # fmt: skip
    some = ["hmoe/hmoe.hpp", "hmoe/core/space.hpp", "hmoe/backends/simd.hpp", "hmoe/testing/report.hpp"]
    for flags, sentence in (
        (["-std=c++17"], NEEDS_CPP20),
        (["-std=c++20", "-ffast-math"], NEEDS_NAN),
        (["-std=c++20", "-Ofast"], NEEDS_NAN),
        (["-std=c++20", "-ffinite-math-only"], NEEDS_NAN),
    ):
        problems += problems_of(include_directory, compiler, flags, sentence, headers if "17" in flags[0] else some)
    for header, library in LIBRARIES.items():
        # Nothing of the system is found, the standard library neither.
        problems += problems_of(include_directory, compiler, ["-std=c++20", "-nostdinc", "-nostdinc++"], f"needs {library}",
                                [header])  # fmt: skip
    for other in sys.argv[3:]:
        version = subprocess.run([other, "-dumpversion"], capture_output=True, text=True, check=False).stdout
        if version and int(version.split(".")[0]) < 16:
            problems += problems_of(include_directory, other, ["-std=c++20"], NEEDS_CLANG, some)
            print(f"{other} {version.strip()} was tried")
    print("\n".join(problems))
    return 1 if problems or not headers else 0


if __name__ == "__main__":
    sys.exit(main())
