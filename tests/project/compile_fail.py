#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks that a file compiles when it is right, and that its mistake is refused with the text that it promises.

usage: compile_fail.py [--mistake-only] FILE COMPILER [FLAG...]

The file must compile with -DHMOE_MUST_COMPILE=1 (not tried with --mistake-only). Without it the file must fail, the
output must match each of its lines "// expect: REGEX", and the first line with an error must match one of them. A line
of comment behind such a line continues it. With a line "// alone" there must be no other error. A file FILE.cu is for
nvcc, which may have the text in any line.
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


def first_error(output):
    return next((line for line in output.splitlines() if re.search(r"\berror: ", line)), "")


def problem_of(file, compiler, mistake_only=False):
    text = file.read_text(encoding="utf-8")
    expected = [
        re.sub(r"\n//", "", pattern)
        for pattern in re.findall(r"^// expect: (.+(?:\n// (?!expect:|alone$).+)*)$", text, re.MULTILINE)
    ]
    if not expected:
        return 'it has no line "// expect: REGEX"'
    if not mistake_only:
        right = compile_file(file, compiler, "-DHMOE_MUST_COMPILE=1")
        if right.returncode != 0:
            return "it does not compile with HMOE_MUST_COMPILE:\n" + right.stdout
    wrong = compile_file(file, compiler)
    if wrong.returncode == 0:
        return "its mistake compiles"
    for pattern in expected:
        if not re.search(pattern, wrong.stdout):
            return f'its mistake is refused, but without the text "{pattern}":\n' + wrong.stdout
    first = wrong.stdout if file.suffix == ".cu" else first_error(wrong.stdout)
    if not any(re.search(pattern, first) for pattern in expected):
        return "its mistake is refused, but the first error is another:\n" + wrong.stdout
    if re.search(r"^// alone$", text, re.MULTILINE) and len(re.findall(r"\berror: ", wrong.stdout)) != 1:
        return "its mistake is refused, but further errors follow:\n" + wrong.stdout
    return ""


def main():
    mistake_only = sys.argv[1:2] == ["--mistake-only"]
    arguments = sys.argv[2:] if mistake_only else sys.argv[1:]
    if len(arguments) < 2:
        sys.exit(__doc__)
    problem = problem_of(Path(arguments[0]), arguments[1:], mistake_only)
    if problem:
        print(f"{arguments[0]}: {problem}")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
