#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Shows that a context without a probe costs nothing: takes every observation out of a copy of the headers and compares
the machine code of unobserved.cpp with and without them, function by function. Nine functions out of ten must be the
same; in the others the compiler may have placed values elsewhere or inlined otherwise, but all together must have as many
instructions, to half a percent, and nothing may name an event.

usage: unobserved.py INCLUDE_DIRECTORY SCRATCH_DIRECTORY COMPILER [FLAG...]
       unobserved.py --self-test SCRATCH_DIRECTORY COMPILER
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

# The one form that observations have in the library: an object, and what it tells where there is a probe.
OBSERVATION = re.compile(
    r"\[\[maybe_unused\]\] probes::watch<\w+> (\w+);\s*if constexpr \(probes::observed<\w+>[^;]*?\)\s*\1\.begin\([^;]*?\);"
)
SOURCE = Path(__file__).with_suffix(".cpp")


def take_out(folder):
    """Removes the observations from all headers; returns how many there were."""
    count = 0
    for file in [*folder.rglob("*.hpp")]:
        # Lines stay where they are: errors tell them.
        text, removed = OBSERVATION.subn(lambda all: "\n" * all[0].count("\n"), file.read_text(encoding="utf-8"))
        if removed:
            file.write_text(text, encoding="utf-8")
        count += removed
    return count


def without_numbers(line):
    """Constants are numbered in the order of the whole file."""
    return re.sub(r"\.LC\d+", ".LC", line)


def functions(compiler, flags, source, include, target):
    """Name -> instructions without addresses, for each function of the compiled source."""
    subprocess.run([*compiler, *flags, "-O2", "-DNDEBUG", f"-I{include}", "-c", source, "-o", target], check=True)
    listing = subprocess.run(["objdump", "-dr", "--no-show-raw-insn", target], check=True, capture_output=True, text=True)
    result, name = {}, None
    for line in listing.stdout.splitlines():
        if head := re.match(r"^[0-9a-f]+ <(.*)>:$", line):
            name = head[1]
            result[name] = []
        elif name and line.startswith("\t\t\t"):  # a relocation: what it refers to counts, not where it stands
            result[name].append(without_numbers(re.sub(r"^[0-9a-f]+: *", "", line.strip())))
        elif name and (code := re.match(r"^ *[0-9a-f]+:\t(.*)$", line)):
            result[name].append(without_numbers(re.sub(r"\b[0-9a-f]+ <", "<", code[1])))
    return result


def differences(with_them, without):
    names = sorted({*with_them, *without})
    return [name for name in names if with_them.get(name) != without.get(name)]


def compare(include, scratch, compiler, flags):
    plain = scratch / "include"
    shutil.rmtree(plain, ignore_errors=True)
    shutil.copytree(include, plain)
    count = take_out(plain)
    left = [file for file in plain.rglob("*.hpp") if file.name != "probe.hpp" and "[[maybe_unused]] probes::watch<" in file.read_text(encoding="utf-8")]
    if left:
        return [f"{file}: an observation has another form than the others" for file in left]
    if count < 20:
        return [f"only {count} observations were found: did their form change?"]
    flags = [*flags, "-ffunction-sections"]
    with_them = functions(compiler, flags, SOURCE, include, scratch / "with.o")
    without = functions(compiler, flags, SOURCE, plain, scratch / "without.o")
    other = differences(with_them, without)
    sizes = [sum(map(len, code.values())) for code in (with_them, without)]
    print(f"{len(with_them)} functions, {len(other)} of them differ; {sizes[0]} lines of code, {sizes[1]} with {count} "
          "observations taken out")
    problems = [f"{name}: the code names what only a probe needs" for name, code in with_them.items()
                if any(re.search(r"6probes5(event|watch)", line) for line in (name, *code))]
    if len(other) > len(with_them) / 10:
        problems += [f"{name}: the machine code differs" for name in other]
    if abs(sizes[0] - sizes[1]) > 0.005 * sizes[1]:
        problems.append(f"{sizes[0]} lines of code instead of {sizes[1]}")
    return problems


def self_test(scratch, compiler):
    """Functions that differ are found, those that differ in their place only are not."""
    scratch.mkdir(parents=True, exist_ok=True)
    texts = {
        "one": "int g(int); int f(int x) { return g(x) + 1; }",
        "same": "int g(int); int h(int x) { return g(x) * 7; } int f(int x) { return g(x) + 1; }",
        "other": "int g(int); int f(int x) { g(x); return g(x) + 1; }",
    }
    found = {}
    for name, text in texts.items():
        file = scratch / f"{name}.cpp"
        file.write_text(text, encoding="utf-8")
        found[name] = functions(compiler, ["-ffunction-sections"], file, scratch, scratch / f"{name}.o")
    results = {
        "the same function elsewhere": differences(found["one"], found["same"]) == ["_Z1hi"],
        "another function": differences(found["one"], found["other"]) == ["_Z1fi"],
        "observations": OBSERVATION.sub("", "a;\n[[maybe_unused]] probes::watch<Context> w;\nif constexpr (probes::observed<Context>)\n  w.begin(ctx, {x, y(1)});\nb;") == "a;\n\nb;",
    }
    for name, holds in results.items():
        print(f"{'ok' if holds else 'FAILED'}: {name}")
    return 0 if all(results.values()) else 1


def main():
    if len(sys.argv) >= 4 and sys.argv[1] == "--self-test":
        return self_test(Path(sys.argv[2]), sys.argv[3:])
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    scratch = Path(sys.argv[2])
    scratch.mkdir(parents=True, exist_ok=True)
    # What comes behind the compiler are flags.
    problems = compare(Path(sys.argv[1]), scratch, [sys.argv[3]], sys.argv[4:])
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
