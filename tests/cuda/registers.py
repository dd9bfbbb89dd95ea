#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compiles kernels for one architecture and checks that none spills registers.

usage: registers.py NVCC ARCH SOURCE [FLAG...]
           prints warnings, and registers, shared memory and stack of each kernel
       registers.py --self-test
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<arch>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def kernels(output):
    """What ptxas says of each kernel."""
    for found in KERNEL.finditer(output):
        shared = re.search(r"(\d+) bytes smem", found["rest"])
        yield {
            "name": found["name"],
            "registers": int(found["registers"]),
            "shared": int(shared[1]) if shared else 0,
            "stack": int(found["stack"]),
            "spills": int(found["stores"]) + int(found["loads"]),
        }


def demangled(names):
    result = subprocess.run(["c++filt", *names], stdout=subprocess.PIPE, text=True, check=True)
    return [re.sub(r"hmoe::|backends::|cuda_detail::|void ", "", line) for line in result.stdout.splitlines()]


def problems(output):
    found = list(kernels(output))
    if not found:
        return ["ptxas reported no kernel"]
    return [f"{k['name']} spills {k['spills']} bytes of registers" for k in found if k["spills"] != 0]


def compile_kernels(nvcc, arch, source, flags):
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, "-std=c++20", "-cubin", f"-arch=sm_{arch}", "-Xptxas=-v", *flags]
        command += ["-o", str(Path(folder, "kernels.cubin")), source]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def self_test():
    line = (
        "ptxas info    : Compiling entry function '_Z3addPf' for 'sm_80'\n"
        "ptxas info    : Function properties for _Z3addPf\n"
        "    0 bytes stack frame, {} bytes spill stores, {} bytes spill loads\n"
        "ptxas info    : Used 12 registers, used 1 barriers, 512 bytes smem, 360 bytes cmem[0]\n"
    )
    sound = problems(line.format(0, 0))
    spilling = problems(line.format(8, 4))
    none = problems("")
    if sound or spilling != ["_Z3addPf spills 12 bytes of registers"] or not none:
        sys.exit(f"self-test: {sound}, {spilling}, {none}")


def main():
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        return 0
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    result = compile_kernels(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
    if result.returncode != 0:
        print(result.stdout)
        return 1
    print("\n".join(line for line in result.stdout.splitlines() if "warning" in line))
    found = list(kernels(result.stdout))
    for name, k in zip(demangled([k["name"] for k in found]), found):
        print(f"{k['registers']:3} registers {k['shared']:6} B shared {k['stack']:5} B stack  {name[:200]}")
    failed = problems(result.stdout)
    print("\n".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
