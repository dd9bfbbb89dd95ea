#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks that a file compiles when it is right, and that its mistake is refused with the text that it promises.

usage: compile_fail.py FILE COMPILER [FLAG...]

The file must compile with -DHMOE_MUST_COMPILE=1. Without it the file must fail, and the compiler's output must match
each of its lines "// expect: REGEX". A file FILE.cu is for nvcc.
"""

import os
import re
import subprocess
import sys
from pathlib import Path


def compile_file(file, compiler, *flags):
    no_output = ["-ptx", "-o", os.devnull] if file.suffix == ".cu" else ["-fsyntax-only"]
    command = [*compiler, *no_output, *flags, str(file)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def problem_of(file, compiler):
    expected = re.findall(r"^// expect: (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    if not expected:
        return 'it has no line "// expect: REGEX"'
    right = compile_file(file, compiler, "-DHMOE_MUST_COMPILE=1")
    if right.returncode != 0:
        return "it does not compile with HMOE_MUST_COMPILE:\n" + right.stdout
    wrong = compile_file(file, compiler)
    if wrong.returncode == 0:
        return "its mistake compiles"
    for pattern in expected:
        if not re.search(pattern, wrong.stdout):
            return f'its mistake is refused, but without the text "{pattern}":\n' + wrong.stdout
    return ""


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    problem = problem_of(Path(sys.argv[1]), sys.argv[2:])
    if problem:
        print(f"{sys.argv[1]}: {problem}")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
