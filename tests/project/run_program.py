#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compiles a small program with flags that the test programs do not have, runs it and checks how it ends.

usage: run_program.py FILE COMPILER [FLAG...]

Lines of the file say what is expected:
  // flags: FLAGS       more flags; one program for each such line
  // aborts             the program must end by abort(); without this line it must return 0
  // prints: REGEX      its output, or the compiler's where the program is only compiled, must match
  // compile only       do not link and run it
"""

import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path


def run(command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def problem_of(file, compiler, flags):
    text = file.read_text(encoding="utf-8")
    patterns = re.findall(r"^// prints: (.+)$", text, re.MULTILINE)
    only_compile = re.search(r"^// compile only$", text, re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program"
        output = ["-fsyntax-only"] if only_compile else ["-o", str(program)]
        done = run([*compiler, *flags, str(file), *output])
        if done.returncode != 0:
            return "it does not compile:\n" + done.stdout
        if not only_compile:
            done = run([str(program)])
            expected = -signal.SIGABRT if re.search(r"^// aborts$", text, re.MULTILINE) else 0
            if done.returncode != expected:
                return f"it ends with {done.returncode} instead of {expected}:\n" + done.stdout
    for pattern in patterns:
        if not re.search(pattern, done.stdout):
            return f'its output lacks "{pattern}":\n' + done.stdout
    return ""


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    file, compiler = Path(sys.argv[1]), sys.argv[2:]
    variants = re.findall(r"^// flags: (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE) or [""]
    failed = False
    for flags in variants:
        if problem := problem_of(file, compiler, flags.split()):
            print(f"{file} with {flags or 'no more flags'}: {problem}")
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
